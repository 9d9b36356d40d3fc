"""unpack: what lies in archives, encrypted or not, as files that later steps take."""

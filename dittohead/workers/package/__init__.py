"""package: files as a submission information package, with METS and PREMIS, as a profile asks for it."""

"""The board: what is on its way as tokens in directories, for people with `ls` and `mv`; and a way in."""

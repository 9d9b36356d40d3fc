"""Submission information packages: files with their METS and PREMIS, as a profile asks for it."""

"""scan: every file to clamd, the virus scanner of ClamAV; what it finds stops the folder.

Source: clamd(8), "COMMANDS", of ClamAV 1.4; docs/simulators.md says what of it was seen.
"""

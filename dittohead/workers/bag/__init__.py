"""bag: BagIt bags. Check one that was dropped, or make one.

Source: RFC 8493 (BagIt 1.0), and the drafts draft-kunze-bagit-05 to -14 for versions 0.93 to 0.97.
"""

"""Tell people and programs: what is composed, gathered, sent, tried again for days; it decides no outcome.

`compose` makes rows for the outbox of what happened, in the transaction of what happened; `digest` makes
one of many; `sender` hands them over by `mail`, `webhook` or `apprise`; `ping` says that the daemon is
well; `doors` is what people ask for by hand.
"""

"""Named moments at which a test may let the daemon die; nothing happens at them otherwise.

Each is a moment between two effects that a crash can part: a rename and its fsync, a durable receipt
and the commit that follows. The tests replace `point` before the daemon is imported; see
docs/reliability.md for what they do with it.
"""

from __future__ import annotations

#: Every point, in the order in which a job meets them.
POINTS = (
    "claim.decided",
    "move.renamed",  # between the stations, not yet durable
    "move.arrived",  # the new parent is durable, the old one not yet
    "move.durable",
    "store.written",  # the statements have run, the commit has not
    "store.committed",
    "file.written",  # under its temporary name, not yet durable
    "file.durable",
    "file.renamed",  # in its place, the directory not yet durable
    "manifest.taken",
    "step.ran",  # the worker has returned, its result is not recorded
    "step.durable",
    "rsync.listed",
    "rsync.delivered",
    "rsync.verified",
    "upload.intended",  # noted that a multipart upload will be begun
    "upload.begun",  # the store has given its id, which is not noted
    "upload.part",  # the store has a part
    "upload.sent",  # it has all parts
    "upload.completed",
    "upload.verified",
    "finish.begun",
    "finish.receipt",
    "finish.committed",
    "finish.reason",
    "finish.moved",
    "notice.sent",  # handed over, not recorded
)

#: Those that only the folders of a source meet, in their order.
SOURCE_POINTS = (
    "source.made",  # the directory is there, its inode not yet recorded
    "source.piece",  # some of a file is written
    "source.fetched",  # all files are there and verified
    "source.durable",
    "source.recorded",  # as dropped; not yet renamed
    "source.renamed",
    "source.settled",  # upstream was told; not recorded
)

#: Those that only a source with a catalogue meets, and one that asks upstream for something.
CATALOGUE_POINTS = (
    "source.told",  # a part of a listing, or of what was asked for, is in the catalogue
    "source.left",  # some of what a listing did not name has left
    "grin.noted",  # that volumes will be asked for is noted; they are not asked for
    "grin.asked",  # GRIN has answered, which is not noted
)

#: Those that only a board meets.
BOARD_POINTS = (
    "board.asked",  # what tokens ask for is in the store; their files are still there
    "board.written",  # a token is in its new place; the old one is still there
)

#: Those that only the replacing of a file meets, in their order.
REPLACE_POINTS = (
    "replace.noted",  # what is to be done is durable, nothing is done
    "replace.set",  # the new file lies beside the place for the earlier one
    "replace.swapped",  # each lies in the other's place, not yet durable
    "replace.kept",  # durable, and the earlier one has its name again
    "replace.recorded",  # in the store; not in the receipt
)

#: Those that only a folder meets that is removed, in their order.
REMOVAL_POINTS = (
    "removal.intent",  # it is noted that the folder is to go; it lies where it lay
    "removal.aside",  # it has another name, and is whole
    "removal.noted",  # the receipt says that it was removed; from here on it goes
    "removal.removed",  # it is gone, which the store does not know
)

#: Those that only an unpack step meets, in their order.
UNPACK_POINTS = (
    "unpack.written",  # the members of an archive, in the scratch directory; gpg has ended well
    "unpack.judged",  # all archives
    "unpack.durable",
    "unpack.published",  # the scratch directory has become the step's own
)

#: Those that only an ocfl step meets: a new object the first three and the last, a new version all.
OCFL_POINTS = (
    "ocfl.built",  # all of it lies in the work directory, not yet durable
    "ocfl.durable",
    "ocfl.placed",  # the object, or the version's directory, has its place; not yet durable
    "ocfl.inventory",  # the version is durable, the object's inventory is the new one, its digest the old
    "ocfl.sidecar",  # both are new, not yet durable
    "ocfl.published",
)

#: Those that only a submit step meets, in their order; the second over REST only.
SUBMIT_POINTS = (
    "submit.intended",  # noted that a package of this name will be sent
    "submit.created",  # the service has begun an upload, whose id is not noted
    "submit.begun",  # noted; nothing of it is sent
    "submit.sent",  # all bytes are there, or all but the last request; it is not handed over
    "submit.committed",  # noted that it will be handed over now
    "submit.handed_over",  # the service has it, which is not noted
    "submit.noted",
    "submit.released",  # the archive in work/ is gone; the transfer is not recorded
    "submit.answered",  # the answer was seen, not fetched
    "submit.kept",  # its reports are durable, it is not noted
)


def point(name: str) -> None:
    """Do nothing, at a moment worth dying at."""


#: Those that only a file in the inbox meets of which a folder is made, in their order.
WRAP_POINTS = (
    "wrap.made",  # a dotted directory is there, empty
    "wrap.moved",  # the file lies in it, not yet durable
    "wrap.durable",
    "wrap.named",  # the directory has the file's name, not yet durable
)

#: Those that only a collection meets.
COLLECTION_POINTS = (
    "claim.split",  # some of its folders have their job
)

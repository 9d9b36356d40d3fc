"""ArchivesSpace: finding archival objects, and recording in it what lies where.

    options          what the step may be told
    component_names  which files belong to which archival object, and what a component is called
    client           one session: its renewal, what answers mean, changes that lose nothing
    records          the shapes that are written, and what of a record counts when two are compared
    intent_log       what is about to be created or changed, noted durably before it is
    description      an archival object in the words of `dittohead.model.description`
    copied_fields    what of its description a new digital object is given
    preflight        everything that can go wrong, found before anything is written
    delivered        what earlier steps delivered, followed back to the files of the folder
    diff             what ArchivesSpace holds of one object, and what it is to hold
    write            writing it
    events           ArchivesSpace's own events
    plan             what would be recorded
    verify           reading back, and verifying years later
    undo             taking out again what a job has put in
    doctor           credentials, permissions and controlled values

Source of every rule about the API: ArchivesSpace's own schemas and controllers (version 4).
"""

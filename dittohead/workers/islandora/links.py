"""Creators and subjects as references to terms that a site has, each in the field that takes it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from dittohead.model.description import Description
from dittohead.workers.islandora.configuration import Configuration
from dittohead.workers.islandora.fields import Fields, reference
from dittohead.workers.islandora.site import Drupal, Term

#: Vocabularies of creators.
_AGENTS = ("person", "corporate_body", "family")

#: Fields of subjects by the vocabulary of their terms, in the order in which a name is searched for.
_SUBJECTS = {
    "subject": "field_subject",
    "person": "field_subjects_name",
    "corporate_body": "field_subjects_name",
    "family": "field_subjects_name",
    "geo_location": "field_geographic_subject",
    "temporal_subjects": "field_temporal_subject",
    "temporal": "field_temporal_subject",
}

#: Vocabularies of subjects that every site has: in others a name cannot be looked for.
_NAMED = ("subject", "person", "corporate_body", "family", "geo_location")


class Linking:
    """Looks for the terms of names; none is ever made."""

    def __init__(self, site: Drupal, configuration: Configuration | None, leave_out: Collection[str]) -> None:
        self._site, self._configuration, self._leave_out = site, configuration, leave_out
        self._terms: dict[tuple[str, str], list[Term]] = {}
        self._vocabularies: dict[str, frozenset[str] | None] = {}
        self.warnings: list[str] = []  #: why a name with terms is not linked
        self.missing: list[str] = []  #: names of creators and subjects without a term

    async def fields(self, found: Description) -> Fields:
        """Return the fields that name an object's creators and subjects."""
        fields: Fields = {}
        for agent in found.creators:
            term = await self._named(agent.name, agent.uri, _AGENTS, _AGENTS)
            if term is not None and await self._takes("field_linked_agent", term, agent.name):
                item = reference(term.tid, "taxonomy_term")[0] | {
                    "rel_type": f"relators:{agent.role or 'cre'}"
                }
                _once(fields.setdefault("field_linked_agent", []), item)
        for subject in found.subjects:
            term = await self._named(subject.name, subject.uri, tuple(_SUBJECTS), _NAMED)
            name = await self._field_of(term, subject.name) if term is not None else ""
            if term is not None and name:
                _once(fields.setdefault(name, []), reference(term.tid, "taxonomy_term")[0])
        return fields

    async def _named(
        self, name: str, uri: str, vocabularies: Collection[str], by_name: Iterable[str]
    ) -> Term | None:
        """Return the one term of a name; None, and why in the receipt, when there is none or several.

        Args:
            vocabularies: in which a term of this URI counts.
            by_name: in which one of this name does, the first ones first.
        """
        found = await self._site.authority(uri) if uri else []
        found = [term for term in found if term.vocabulary in vocabularies]
        for vocabulary in by_name:
            found = found or await self._by_name(vocabulary, name)
        if len(found) > 1:
            self.warnings.append(f"there are {len(found)} terms for {name}: not linked")
        elif not found:
            self.missing.append(name)
        return found[0] if len(found) == 1 else None

    async def _by_name(self, vocabulary: str, name: str) -> list[Term]:
        if (vocabulary, name) not in self._terms:
            self._terms[vocabulary, name] = await self._site.named(vocabulary, name)
        found = self._terms[vocabulary, name]
        return [replace(term, vocabulary=term.vocabulary or vocabulary) for term in found]

    async def _field_of(self, term: Term, said: str) -> str:
        """Return the field of subjects that takes a term; "" when none does."""
        names = [
            name for name in (_SUBJECTS[term.vocabulary], "field_subject") if name not in self._leave_out
        ]
        for name in names:
            taken = await self._taken(name)
            if taken is None or term.vocabulary in taken:
                return name
        self.warnings.append(f"no field takes {said} (of {term.vocabulary}) as a subject: not linked")
        return ""

    async def _takes(self, name: str, term: Term, said: str) -> bool:
        taken = await self._taken(name)
        if name not in self._leave_out and (taken is None or term.vocabulary in taken):
            return True
        self.warnings.append(f"{name} does not take {said} (of {term.vocabulary}): not linked")
        return False

    async def _taken(self, name: str) -> frozenset[str] | None:
        if name not in self._vocabularies:
            told = self._configuration
            self._vocabularies[name] = None if told is None else await told.takes(name)
        return self._vocabularies[name]


def _once(items: list[dict[str, Any]], item: dict[str, Any]) -> None:
    if item not in items:
        items.append(item)

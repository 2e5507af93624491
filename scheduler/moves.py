"""what somebody asks → the registry record that does it, or why not. Pure; the leader writes it."""

from headrace.models.aliases import CHAMPION
from headrace.models.durations import iso
from headrace.models.errors import RegistryRefused
from headrace.models.records import Aliased, Archived, Asked, Promoted, RegistryRecord, Unpinned
from headrace.models.registry import Versions


def record_of(asked: Asked, versions: Versions, now: int) -> RegistryRecord:
    """The next record, in the asker's name. Raises RegistryRefused where it would mean nothing. `now` is Unix ms."""
    record = _record(asked, versions, iso(now))
    versions.check(record)
    return record


def expect_in_time(asked: Asked, now: int) -> None:
    """Who asked does not wait for ever, and must not be surprised later."""
    if now > asked.until:
        raise RegistryRefused("too_late", f"it was asked for until {iso(asked.until)}; nobody led then. Ask again.")


def _record(asked: Asked, versions: Versions, at: str) -> RegistryRecord:
    pipeline, seq, by, why = asked.pipeline, versions.seq + 1, asked.by, asked.why
    match asked.move:
        case "promote" | "rollback" | "pin":
            version = _to_serve(asked, versions)
            return Promoted(
                pipeline=pipeline,
                seq=seq,
                at=at,
                by=by,
                why=why,
                version=version,
                move=asked.move,
                activate_at=asked.activate_at,
            )
        case "unpin":
            return Unpinned(pipeline=pipeline, seq=seq, at=at, by=by, why=why)
        case "alias":
            return Aliased(
                pipeline=pipeline,
                seq=seq,
                at=at,
                by=by,
                why=why,
                alias=asked.alias,
                version=asked.version,
                share=asked.share,
            )
        case "archive" if asked.version is not None:
            return Archived(pipeline=pipeline, seq=seq, at=at, by=by, why=why, version=asked.version)
        case move:
            raise RegistryRefused("incomplete", f"{move} without a version")


def _to_serve(asked: Asked, versions: Versions) -> int:
    champion = versions.aliases[CHAMPION]
    if asked.champion is not None and asked.champion != champion:
        raise RegistryRefused(
            "moved_on", f"it was asked for while version {asked.champion} served; {champion} does now"
        )
    if asked.move == "rollback" and asked.version is None:
        if versions.previous is None:
            raise RegistryRefused("nothing_before", f"no usable version served before the champion, {champion}")
        return versions.previous
    version = champion if asked.move == "pin" and asked.version is None else asked.version
    if version is None:
        raise RegistryRefused("incomplete", f"{asked.move} without a version")
    if version == champion and asked.move != "pin":
        raise RegistryRefused("champion", f"version {version} is the champion already")
    return version

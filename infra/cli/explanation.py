"""an explanation → name and value, one per line: what `headrace data explain` shows to people."""

from typing import TYPE_CHECKING, Any

from headrace.infra.cli.output import figures, print_facts

if TYPE_CHECKING:
    from headrace.infra.services.data.explain import Explanation
    from headrace.models.manifest import Manifest

_SHOWN = 2_000  # characters of an event; --output json has all of it


def show(found: "Explanation") -> None:
    from headrace.infra.services.data.explain import feature_text  # noqa: PLC0415  heavy: only for this command

    event, served, letter = found.event, found.served, found.dead_letter
    facts: list[tuple[str, object]] = [("event", found.source + (f", id {found.id}" if found.id else ""))]
    if event is not None:
        facts += [("  written", event.written_at), ("  key", event.key)]
        facts += [(f"  header {name}", value) for name, value in event.headers.items()]
        facts += [("  value", _text(event.value))]
    else:
        facts += [("  value", found.no_event)]
    if letter is not None:
        facts += [("not served", f"{letter.reason}: {letter.detail}"), ("  parked", f"{letter.at} at {letter.place}")]
        facts += [("  redriven", f"{letter.redriven_at} to {letter.redriven_to}")] if letter.redriven_at else []
    if served is not None:
        facts += [("served", f"{served.score!r} by version {served.version}, at {served.at} in {served.place}")]
        facts += [("  event time", served.event_time)]
        facts += [("  times", f"{served.times}: this is the first")] if served.times > 1 else []
        facts += [(f"  {name}", feature_text(value)) for name, value in served.features.items()]
        nowhere = "answered on demand" if found.on_demand else "no longer on the topic"
        published = nowhere if found.prediction is None else _text(found.prediction)
        facts += [("prediction", published), *_version(found), *_again(found)]
    print_facts(facts)


def _version(found: "Explanation") -> list[tuple[str, object]]:
    number = found.served.version if found.served else 0
    switched, promotion = found.switched, found.promotion
    facts: list[tuple[str, object]] = [("version", number or "0, the baseline: the declaration's rule")]
    if switched is not None:
        facts += [("  serves here", f"since offset {switched.first_offset}, {switched.at}, on {switched.worker}")]
    for one in [promotion] if promotion is not None else found.promotions:
        facts += [("  promoted", f"{one.at} by {one.by}" + (f": {one.why}" if one.why else ""))]
    return facts + ([] if found.manifest is None else _made_of(found.manifest))


def _made_of(manifest: "Manifest") -> list[tuple[str, object]]:
    return [
        ("  made", f"{manifest.created_at} by {manifest.created_by}" if manifest.created_at else ""),
        ("  trigger", f"{manifest.trigger}, tick {manifest.tick}" if manifest.tick else manifest.trigger),
        ("  verdict", manifest.verdict),
        ("  data", f"{manifest.rows:,} rows from {manifest.trained_from} to {manifest.trained_through}"),
        *[("    range", f"{part.topic}/{part.partition} {part.first}..{part.end}") for part in manifest.ranges],
        ("  dataset", f"sha256 {manifest.dataset_sha256}" if manifest.dataset_sha256 else ""),
        ("  code", f"git commit {manifest.git_commit}" if manifest.git_commit else ""),
        ("  hyperparameters", ", ".join(f"{name}={value}" for name, value in manifest.hyperparameters.items())),
        ("  metrics", figures(manifest.metrics)),
        ("  libraries", ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())),
        ("  graph", f"{manifest.onnx.size:,} bytes of ONNX, sha256 {manifest.onnx.sha256}"),
    ]


def _again(found: "Explanation") -> list[tuple[str, object]]:
    again = found.rerun
    if again is None or again.verdict == "not possible":
        return []
    here = ", ".join(f"{name} {version}" for name, version in again.runtime.items())
    there = ", ".join(f"{name} {version}" for name, version in again.made_with.items())
    facts: list[tuple[str, object]] = [("run again", f"{again.verdict}: {again.score!r}, {again.procedure}")]
    if again.difference:
        facts += [("  difference", f"{again.difference:.3g}, tolerance {again.tolerance:.3g}")]
    return [*facts, ("  runtime", here), ("  made with", there)]


def _text(value: Any) -> str:
    import msgspec  # noqa: PLC0415  only for people

    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"

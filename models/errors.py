"""One tree of errors. Each says what was expected, what came and what to do.

HeadraceError
├── DeclarationError     a pipeline file says something that cannot work
├── SettingsError        headrace.toml or the environment does
├── BadInput             a file or an argument that a user handed to a command
├── EventRejected        one record from a topic; it ends as a dead letter, never as a crash
├── RegistryRefused      a registry record, manifest or model that must not serve; the old version goes on
├── RunFailed            a training that produced no version; recorded, never published
├── BrokerUnavailable    Kafka does not answer, or a topic is not there
├── StoreUnavailable     Redis does not answer
├── ServerMissing        what a local server needs is not on this machine
├── PortTaken            somebody else listens there
└── Stalled              a wait that has a name and a deadline outlived it
"""


class HeadraceError(Exception):
    """Base of everything that headrace raises on purpose: the command line prints it as one line and exits with 1."""


class DeclarationError(HeadraceError):
    def __init__(self, where: str, expected: str, got: object, remedy: str) -> None:
        super().__init__(f"{where}: expected {expected}, got {got!r}. {remedy}")


class SettingsError(HeadraceError):
    pass


class BadInput(HeadraceError):
    pass


class EventRejected(HeadraceError):
    """`reason` is a short fixed word for metrics (`not_json`, `wrong_shape`, …); the message has the particulars."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RegistryRefused(HeadraceError):
    """`reason` is a short fixed word for metrics (`bad_hash`, `not_onnx`, `lacks_feature`, …)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RunFailed(HeadraceError):
    """`reason` is a short fixed word (`too_few_rows`, `one_class`, `loss_not_finite`, `parity`, `crashed`, …)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BrokerUnavailable(HeadraceError):
    pass


class StoreUnavailable(HeadraceError):
    pass


class ServerMissing(HeadraceError):
    pass


class PortTaken(HeadraceError):
    pass


class Stalled(HeadraceError):
    pass

"""The error of everything that speaks with a broker; apart, so that naming it costs no import of a client."""


class BrokerError(RuntimeError):
    """The broker cannot be reached, or a topic is not as it must be; the message names it and the mend."""

"""Training that outlives failures of the server: it is run again from its last checkpoint, where that can help.

::

    def train(attempt):
        for step in range(attempt.step, 1000):
            attempt.client.forward_backward(batch(step), "cross_entropy")
            attempt.client.optim_step(types.AdamParams())
            if (step + 1) % 50 == 0:
                attempt.save(step + 1)
        return attempt.save(1000)

    path = train_with_recovery(
        tinkex.ServiceClient, lambda service: service.create_lora_training_client("tinkex/tiny"), train
    )

Every attempt has a session and a model of its own, so nothing of a failed one is left in doubt. The steps after the
last checkpoint are done again; what the program has noted of them elsewhere, such as their losses, comes twice.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import tenacity

from tinkex._scalars import plain_number, whole_argument
from tinkex.errors import (
    APIStatusError,
    FutureExpiredError,
    PipelineBrokenError,
    ProgressTimeoutError,
    RequestFailedError,
    TinkexError,
)
from tinkex.types._base import number, whole
from tinkex.types.weights import check_path

if TYPE_CHECKING:
    from tinkex.clients import ServiceClient, TrainingClient

__all__ = ["Attempt", "RecoveryPolicy", "Restart", "SavePoint", "train_with_recovery"]

logger = logging.getLogger("tinkex")

T = TypeVar("T")

_OVER = 410
_GONE = (404, _OVER)
# 2.0**60 waits are far above any max_wait_s; a larger power would overflow in the end.
_MAX_DOUBLINGS = 60


def _path(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    check_path(value, "training", attribute.name)


_DAY_S = 86400.0


@attrs.frozen(kw_only=True, slots=True)
class RecoveryPolicy:
    """How often to begin again, and how far apart.

    Attributes:
        max_failures: Give up at this many failures with no new checkpoint between them; 1 never begins again. A
            run that gets on may fail more often than that.
        initial_wait_s: Seconds before the first attempt after a new checkpoint; each further wait is twice as long.
        max_wait_s: Longest wait, unless the server asks for more.
        jitter: A wait is lowered by a random share of up to this, from 0 to 1, so that programs that failed together do
            not come back together.
    """

    max_failures: int = attrs.field(default=5, converter=plain_number, validator=whole(1))
    initial_wait_s: float = attrs.field(
        default=5.0, converter=plain_number, validator=number(minimum=0.0, maximum=_DAY_S)
    )
    max_wait_s: float = attrs.field(default=60.0, converter=plain_number, validator=number(minimum=0.0, maximum=_DAY_S))
    jitter: float = attrs.field(default=0.25, converter=plain_number, validator=number(minimum=0.0, maximum=1.0))


@attrs.frozen(kw_only=True, slots=True)
class SavePoint:
    """A checkpoint to go on from.

    Attributes:
        step: Steps that were done when it was saved.
        path: The checkpoint, as ``save_state`` returned it.
    """

    step: int = attrs.field(converter=plain_number, validator=whole(0))
    path: str = attrs.field(validator=_path)


@attrs.frozen(kw_only=True, slots=True)
class Restart:
    """One failure that training goes on after.

    Attributes:
        attempt: Number of the attempt that failed, 1 for the first.
        failures: Failures since the last new checkpoint, this one included.
        cause: The first failure; if the pipeline was broken, what broke it.
        save_point: What the next attempt goes on from; None if it begins anew.
        wait_s: Seconds until then.
    """

    attempt: int
    failures: int
    cause: TinkexError
    save_point: SavePoint | None
    wait_s: float


class Attempt:
    """What a training function works with. Used by the thread that called :func:`train_with_recovery`.

    Attributes:
        service: The client of this attempt, for samplers and the like; it is closed when the attempt ends.
        client: The model, with the weights and the optimizer of ``save_point``.
        number: Which attempt it is, 1 for the first.
        step: Steps that are done: go on with the one after.
        save_point: The last checkpoint; None if there is none yet.
    """

    def __init__(
        self, service: ServiceClient, client: TrainingClient, save_point: SavePoint | None, number: int
    ) -> None:
        """Begin at ``save_point``, whose weights ``client`` has."""
        self.service = service
        self.client = client
        self.number = number
        self.step = save_point.step if save_point else 0
        self.save_point = save_point

    def save(self, step: int, ttl_seconds: int | None = None) -> str:
        """Save weights and optimizer as ``step-<step>``: a later attempt goes on from there. Waits until it is done.

        The checkpoint counts if all that was submitted before it has succeeded, whether or not its futures were read,
        and the server has not marked the run as corrupted. A step that is saved already is not saved again. End with a
        save, which so vouches for the last steps.

        Args:
            step: Steps that are done when everything submitted so far is.
            ttl_seconds: Delete the checkpoint after this long, 3600 seconds to ten years; None keeps it.

        Returns:
            The path, to be kept for the next program.

        Raises:
            InvalidInputError: ``step`` is not a whole number, or lies before the last checkpoint.
            PipelineBrokenError: Something submitted before it has failed.
            RequestFailedError: The server has marked the run as corrupted.
            TinkexError: It could not be saved.
        """
        last = self.save_point
        step = whole_argument(step, "step", last.step if last else 0)
        if last is not None and step == last.step:
            return last.path
        path = self.client.save_state(f"step-{step}", ttl_seconds).result().path
        self.require_sound()
        self.save_point = SavePoint(step=step, path=path)
        return path

    def require_sound(self) -> None:
        """Raise if what was trained cannot be relied on. A server that does not tell has not marked the run.

        Raises:
            PipelineBrokenError: An operation failed; it is the ``__cause__``.
            RequestFailedError: The server has marked the run as corrupted.
        """
        self.client.check()
        if self._is_corrupted():
            raise RequestFailedError(
                f"the server has marked the training run {self.client.model_id} as corrupted, so it can only be "
                "continued from an earlier checkpoint",
                category="server",
                operation="get_training_run",
            )

    def is_spoilt(self) -> bool:
        """Ask the server whether the model is gone or corrupted, which makes it refuse what is not at fault."""
        return self._is_gone() or self._is_corrupted()

    def _is_gone(self) -> bool:
        try:
            self.client.get_info()
        except TinkexError as error:
            return error.retryable or getattr(error, "status_code", None) in _GONE
        return False

    def _is_corrupted(self) -> bool:
        try:
            run = self.service.create_rest_client().get_training_run(self.client.model_id).result()
        except TinkexError as error:
            logger.info("the server did not tell whether %s is corrupted: %s", self.client.model_id, error)
            return False
        return run.corrupted


def train_with_recovery(
    open_service: Callable[[], ServiceClient],
    create: Callable[[ServiceClient], TrainingClient],
    train: Callable[[Attempt], T],
    *,
    save_point: SavePoint | None = None,
    policy: RecoveryPolicy | None = None,
    on_restart: Callable[[Restart], object] | None = None,
    sleep: Callable[[float], None] | None = None,
) -> T:
    """Train, and after a failure that this can help go on from the last checkpoint, with its optimizer.

    It helps if the server failed or could not be reached after all retries, if it has lost a result, the model or the
    session, and if it has marked the run as corrupted. A failure whose side the server does not tell counts as its own.
    Everything else ends the training at once: input that is wrong, requests that are refused, a key that is not known,
    a checkpoint that is not there, and whatever is not an error of tinkex.

    Args:
        open_service: Makes the client of an attempt, which is closed at its end.
        create: Makes the model to begin with; called again if there is a failure before the first checkpoint.
        train: Trains from ``attempt.step`` on and saves with ``attempt.save``. It is called once for each attempt, and
            must submit the same for a step whichever attempt it is.
        save_point: Begin here instead of with ``create``; what an earlier program has kept.
        policy: How often and how far apart; ``RecoveryPolicy()`` unless given.
        on_restart: Told of each restart before the wait for it begins; what it raises ends the training. The log has a
            warning too.
        sleep: Waits some seconds.

    Returns:
        What ``train`` returned. Samplers and other clients in it are closed, futures are done.

    Raises:
        TinkexError: What could not be helped, or the last of ``policy.max_failures`` failures with no new checkpoint.
    """
    run = _Run(
        open_service=open_service,
        create=create,
        train=train,
        policy=policy or RecoveryPolicy(),
        on_restart=on_restart,
        save_point=save_point,
    )
    retrying = tenacity.Retrying(
        sleep=sleep or tenacity.sleep_using_event(threading.Event()),
        wait=run.wait,
        retry=run.may_go_on,
        stop=run.gives_up,
        before_sleep=run.report,
        reraise=True,
    )
    return retrying(run)


@attrs.define(kw_only=True, slots=True)
class _Run(Generic[T]):
    """The attempts, counted, and the questions that tenacity asks between them."""

    open_service: Callable[[], ServiceClient]
    create: Callable[[ServiceClient], TrainingClient]
    train: Callable[[Attempt], T]
    policy: RecoveryPolicy
    on_restart: Callable[[Restart], object] | None
    save_point: SavePoint | None
    made: int = 0
    failures: int = 0
    cause: TinkexError | None = None  # of a failure that an attempt more can help, until the next attempt

    def __call__(self) -> T:
        """Make the next attempt."""
        self.made += 1
        self.cause = None
        with self.open_service() as service:
            return self._try(service)

    def _try(self, service: ServiceClient) -> T:
        attempt = None
        try:
            attempt = Attempt(service, self._model(service), self.save_point, self.made)
            result = self.train(attempt)
            attempt.require_sound()
        except TinkexError as error:
            # Asked now, because only now is there a client that can ask.
            self._failed(error, attempt)
            raise
        return result

    def _model(self, service: ServiceClient) -> TrainingClient:
        if self.save_point is None:
            return self.create(service)
        return service.create_training_client_from_state_with_optimizer(self.save_point.path)

    def _failed(self, error: TinkexError, attempt: Attempt | None) -> None:
        reached = attempt.save_point if attempt else self.save_point
        self.failures = self.failures + 1 if reached == self.save_point else 1
        self.save_point = reached
        cause = _first_failure(error)
        if isinstance(cause, TinkexError) and _can_help(cause, attempt):
            self.cause = cause

    def may_go_on(self, _: tenacity.RetryCallState) -> bool:
        return self.cause is not None

    def gives_up(self, _: tenacity.RetryCallState) -> bool:
        return self.failures >= self.policy.max_failures

    def wait(self, _: tenacity.RetryCallState) -> float:
        asked = self.cause.retry_after if self.cause else None
        doubled = self.policy.initial_wait_s * 2.0 ** min(self.failures - 1, _MAX_DOUBLINGS)
        share = self.policy.jitter * random.random()  # noqa: S311 - spreads load, guards nothing
        return max(asked or 0.0, min(doubled, self.policy.max_wait_s) * (1.0 - share))

    def report(self, state: tenacity.RetryCallState) -> None:
        assert self.cause is not None  # noqa: S101 - may_go_on saw to it
        restart = Restart(
            attempt=self.made,
            failures=self.failures,
            cause=self.cause,
            save_point=self.save_point,
            wait_s=state.upcoming_sleep,
        )
        place = f"from step {self.save_point.step}, {self.save_point.path}" if self.save_point else "from the beginning"
        logger.warning(
            "training failed in attempt %d: %s; going on %s in %.1f s (failure %d of %d)",
            *(self.made, self.cause, place, restart.wait_s, self.failures, self.policy.max_failures),
        )
        if self.on_restart is not None:
            self.on_restart(restart)


def _first_failure(error: BaseException) -> BaseException:
    """Return what broke the pipeline, if that is what an error tells of."""
    while isinstance(error, PipelineBrokenError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _can_help(cause: TinkexError, attempt: Attempt | None) -> bool:
    """Return True if another attempt may succeed; the server is asked where only it can know."""
    if isinstance(cause, (FutureExpiredError, ProgressTimeoutError)) or cause.retryable:
        return True
    if isinstance(cause, RequestFailedError) and cause.category != "user":
        return True
    if attempt is None or not isinstance(cause, (APIStatusError, RequestFailedError)):
        return False
    # A session that is over may be so before its models are.
    return getattr(cause, "status_code", None) == _OVER or attempt.is_spoilt()

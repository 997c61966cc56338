"""A-GEM (Chaudhry et al. 2019): learn the current task; replayed windows only veto what would make the earlier ones worse."""

from reconverge.policy.hooks import Hook, Losses, Method
from reconverge.policy.learner import Learner
from reconverge.policy.methods.replay import WindowSource
from reconverge.policy.own_method import OwnMethod


class Veto(Hook):
    """g <- g - (g.r / r.r) r where g.r < 0, g the gradient on current windows and r that on replayed ones."""

    name = "veto"
    vetoed = 0.0  # share of g that the last veto took away

    def __init__(self, source: WindowSource) -> None:
        self.source = source

    def objective_gradient(self, learner: Learner) -> Losses:
        size, gradient = learner.config.batch_size, learner.parameters.gradient
        replayed = self.source.draw(size, learner.stream("replay"), without=learner.current_tasks)
        replay_loss, reference = None, None
        if replayed is not None:
            replay_loss = learner.losses(None, replayed, learner.stream("replay noise")).replay
            learner.backward(replay_loss)
            reference = gradient.clone()
            gradient.zero_()
        loss = learner.losses(learner.windows.draw(size, learner.stream("windows")), None, learner.stream("noise")).current
        learner.backward(loss)
        if reference is not None:
            against = (gradient.dot(reference) / reference.dot(reference)).clamp_max(0.0)
            self.vetoed = float((against * reference).norm() / gradient.norm())
            gradient.sub_(against * reference)
        return Losses(loss, replay_loss)

    def figures(self) -> dict[str, float]:
        return {"vetoed": self.vetoed}


METHOD = OwnMethod(lambda source, config, parameters, device: Method("a-gem", (Veto(source),), target="noise"), replays=True)

"""A grader for tests."""

import re

from hpt_trl.verifier.grader import Grader

# Time limit in seconds for what never ends.
PATIENCE = 3.0
# Time limit in seconds for an event that is certain to happen, on a machine as busy as it may be.
DEADLINE = 300.0
BOMB = re.compile(r"\^\{10\^|2\^\{2\^\{|\(10\^\{\d\}\)!")


class FairGrader(Grader):
    """Gives bombs a short limit and all other answers a long one: no verdict depends on how busy the machine is."""

    def __init__(self, bombs=BOMB, **options):
        super().__init__(seconds=DEADLINE, **options)
        self.bombs = bombs

    def _deadline(self, worker):
        deadline = super()._deadline(worker)
        is_bomb = worker.is_ready and worker.jobs and self.bombs.search(worker.jobs[0].pair[0])
        return deadline - DEADLINE + PATIENCE if is_bomb else deadline

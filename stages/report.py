"""Draw both pages, and the numbers that DVC compares, from the records of all stages: python -m stages.report"""

from pipeline.config import Params
from stages.entry import REPORTS, stage


def main(params: Params) -> None:
    from pipeline.reporting.laboratory.page import write_laboratory
    from pipeline.reporting.metrics import write_metrics
    from pipeline.reporting.page import write_report

    if (REPORTS / "laboratory").exists():
        write_laboratory(REPORTS, profile=params.profile)
    write_report(REPORTS, profile=params.profile)
    write_metrics(REPORTS)


if __name__ == "__main__":
    stage(main)

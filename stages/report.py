"""Draw the report from the records of all stages: python -m stages.report"""

from pipeline.config import Params
from stages.entry import REPORTS, stage


def main(params: Params) -> None:
    from pipeline.reporting.page import write_report

    write_report(REPORTS, profile=params.profile)


if __name__ == "__main__":
    stage(main)

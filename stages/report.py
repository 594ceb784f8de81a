"""Draw both pages from the records of all stages and the tables of the laboratory: python -m stages.report"""

from pipeline.config import Params
from stages.entry import REPORTS, stage


def main(params: Params) -> None:
    from pipeline.reporting.laboratory.page import write_laboratory
    from pipeline.reporting.page import write_report

    if (REPORTS / "laboratory").exists():
        write_laboratory(REPORTS, profile=params.profile)
    write_report(REPORTS, profile=params.profile)


if __name__ == "__main__":
    stage(main)

"""How well a trial estimates the true LFD: `python3 run.py bench trial_agreement --clips 4`.

Prints only the table of the benchmark `trial_resolution`, from the same records. For each downsample
factor, kind of trial and reference it gives Spearman's rank correlation, over the calls of a run,
between the trial's LFD and the LFD of the predictions at full resolution, both against the call
before: the mean over the clips and, in brackets, the lowest.
"""

from benchmarks.figures.trial_resolution import measured, table
from benchmarks.study import Records, Study, parser_of, write_table


def main():
    args = parser_of(__doc__, clips=4).parse_args()
    study = Study.of(args)
    records = measured(study, Records(args.out / "trial_resolution.jsonl", study, args.fresh), args.clips)
    write_table(
        args.out / f"trial_agreement_{args.shape[2]}x{args.shape[3]}.txt",
        [*study.lines("trial_agreement", args.clips), *table(records)],
    )


if __name__ == "__main__":
    main()

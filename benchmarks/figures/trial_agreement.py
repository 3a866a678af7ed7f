"""How well a trial's LFD agrees with the true one: `python3 run.py bench trial_agreement --clips 4`.

Only the table of benchmarks.figures.trial_resolution, from the same records: Spearman's rank
correlation, over the calls of a run, of the trial's LFD with the full-resolution LFD of the
predictions themselves, both against the call before. Mean and, in brackets, lowest over the
clips, for each size of trial, kind of trial and reference.
"""

from benchmarks.figures.trial_resolution import measured, table
from benchmarks.study import Records, Study, parser_of, write_table


def main():
    args = parser_of(__doc__, clips=4).parse_args()
    study = Study.of(args)
    records = measured(study, Records(args.out / "trial_resolution.jsonl", study, args.fresh), args.clips)
    write_table(args.out / f"trial_agreement_{args.shape[2]}x{args.shape[3]}.txt",
                [*study.lines("trial_agreement", args.clips), *table(records)])


if __name__ == "__main__":
    main()

"""Checks the results of the example scripts against Biopython.

Usage: python check_with_biopython.py [EXPECTED_DIR]

EXPECTED_DIR holds one file for each script, <script>.txt, with what the script printed for
data/lambda.fasta and no other argument; it is the folder `expected` beside this program by default.

Every line of those files is computed anew from the sequence, by Biopython where it has the function
and otherwise by another method than the script's, and compared byte for byte. The first difference
is reported, with the number that differs, and the exit code is then 1.
"""

import hashlib
import sys
from collections import Counter
from itertools import accumulate
from pathlib import Path

from Bio import SeqIO
from Bio.Data import CodonTable
from Bio.Restriction import BamHI, EcoRI, HincII, HindIII, SapI
from Bio.Seq import reverse_complement
from Bio.SeqUtils import GC_skew, gc_fraction, nt_search

HERE = Path(__file__).resolve().parent
FASTA = HERE / "data" / "lambda.fasta"
SEQUENCE_SHA256 = "36432a40f602258d19ae7c8152ddbc30390b559f2859c01d7047c77b048c71b3"

WINDOW = 5000
K = 6
TOP = 10
MIN_CODONS = 100
MOTIFS = ["GAATTC", "GGATCC", "AAGCTT", "GTYRAC", "GCTCTTC", "GCTGGTGG"]
ENZYMES = {"GAATTC": EcoRI, "GGATCC": BamHI, "AAGCTT": HindIII, "GTYRAC": HincII, "GCTCTTC": SapI}


class Disagreement(Exception):
    """Two answers to one question differ; the message says which."""


def require_equal(what, one, other):
    if one != other:
        raise Disagreement(f"{what}: {one} and {other}")


def heading(record):
    return [f"sequence: {record.id}", f"length: {len(record.seq)}"]


# Base composition


def extreme(label, points, choose):
    skew = choose(points)
    return f"{label} cumulative GC skew: {skew:.0f} at {points.index(skew) + 1}"


def gc_content(record):
    sequence = record.seq
    counts = {base: sequence.count(base) for base in "ACGT"}
    lines = heading(record)
    lines += [f"{base}: {count}" for base, count in counts.items()]
    lines += [
        f"other: {len(sequence) - sum(counts.values())}",
        f"GC percent: {100 * gc_fraction(sequence):.4f}",
        f"GC skew: {GC_skew(sequence, window=len(sequence))[0]:.4f}",
        "",
        "     start        end  GC percent   GC skew",
    ]
    for index, skew in enumerate(GC_skew(sequence, window=WINDOW)):
        window = sequence[index * WINDOW : (index + 1) * WINDOW]
        start = index * WINDOW + 1
        percent = 100 * gc_fraction(window)
        lines.append(f"{start:10} {start + len(window) - 1:10} {percent:11.4f} {skew:9.4f}")
    # The skew of a single base is 1 for G, -1 for C and 0 for the others.
    points = list(accumulate(GC_skew(sequence, window=1)))
    return lines + ["", extreme("lowest", points, min), extreme("highest", points, max)]


# k-mers


def ranking(counts, total):
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"  {kmer} {count:8} {100 * count / total:8.4f} %" for kmer, count in ordered[:TOP]]


def kmer_counts(record):
    sequence = record.seq
    total = len(sequence) - K + 1
    kmers = {str(sequence[first : first + K]) for first in range(total)}
    counts = {kmer: sequence.count_overlap(kmer) for kmer in kmers}
    require_equal("k-mers counted and positions", sum(counts.values()), total)
    canonical = {}
    for kmer in kmers:
        opposite = reverse_complement(kmer)
        both_strands = sum(sequence.count_overlap(form) for form in {kmer, opposite})
        canonical[min(kmer, opposite)] = both_strands
    lines = heading(record)
    lines += [
        f"k: {K}",
        f"k-mers: {total}",
        f"distinct k-mers: {len(counts)}",
        f"distinct canonical k-mers: {len(canonical)}",
    ]
    lines += ["", "most frequent k-mers:", *ranking(counts, total)]
    lines += ["", "most frequent canonical k-mers:", *ranking(canonical, total)]
    return lines


# Open reading frames


def orfs_of_frame(strand, frame, sequence, length):
    """Yields (start, end, strand, frame, protein) for the ORFs of one frame."""
    codons = (length - frame + 1) // 3
    translation = str(sequence[frame - 1 : frame - 1 + 3 * codons].translate(table=11))
    offset = 0
    for stretch in translation.split("*")[:-1]:  # what follows the last stop has no end
        methionine = stretch.find("M")
        protein = stretch[methionine:] if methionine >= 0 else ""
        if len(protein) >= MIN_CODONS:
            first = frame + 3 * (offset + methionine)
            last = frame + 3 * (offset + len(stretch)) + 2
            if strand == "-":
                first, last = length + 1 - last, length + 1 - first
            yield first, last, strand, frame, protein
        offset += len(stretch) + 1


def open_reading_frames(record):
    standard, bacterial = (CodonTable.unambiguous_dna_by_id[table] for table in (1, 11))
    require_equal("tables 1 and 11", standard.forward_table, bacterial.forward_table)
    require_equal("stops of tables 1 and 11", standard.stop_codons, bacterial.stop_codons)
    strands = {"+": record.seq, "-": record.seq.reverse_complement()}
    orfs = sorted(
        orf
        for strand, sequence in strands.items()
        for frame in (1, 2, 3)
        for orf in orfs_of_frame(strand, frame, sequence, len(record.seq))
    )
    lines = [*heading(record), "", "strand frame      start        end     aa  begins"]
    for first, last, strand, frame, protein in orfs:
        lines.append(
            f"{strand:>6} {frame:5} {first:10} {last:10} {len(protein):6}  {protein[:20]}"
        )
    on_strand = Counter(strand for _, _, strand, _, _ in orfs)
    summary = (
        f"ORFs of at least {MIN_CODONS} codons: {len(orfs)} "
        f"({on_strand['+']} on the forward strand, {on_strand['-']} on the reverse)"
    )
    return [*lines, "", summary]


# Motifs


def starts_of(motif, sequence):
    """Returns the start, counted from 1, of each match on the forward strand."""
    return [offset + 1 for offset in nt_search(str(sequence), motif)[1:]]


def sites_of(motif, sequence):
    """Returns (start, end, strand, bases) for each site, in order."""
    # Here the motif is searched for on the reverse strand itself, and its places are then mirrored.
    opposite = sequence.reverse_complement()
    last_start = len(sequence) - len(motif) + 1
    starts = {
        "+": starts_of(motif, sequence),
        "-": sorted(last_start + 1 - start for start in starts_of(motif, opposite)),
    }
    if reverse_complement(motif) == motif:
        require_equal(f"places of {motif} on the two strands", starts["+"], starts["-"])
        starts = {"both": starts["+"]}
    sites = []
    for strand, strand_starts in starts.items():
        for start in strand_starts:
            end = start + len(motif) - 1
            bases = str(sequence[start - 1 : end])
            if strand == "-":
                bases = reverse_complement(bases)
            sites.append((start, end, strand, bases))
    return sorted(sites)


def motif_search(record):
    lines = heading(record)
    for motif in MOTIFS:
        sites = sites_of(motif, record.seq)
        if motif in ENZYMES:
            enzyme = ENZYMES[motif]
            require_equal(f"site of {enzyme}", enzyme.site, motif)
            require_equal(f"cuts of {enzyme}", len(enzyme.search(record.seq)), len(sites))
        opposite = reverse_complement(motif)
        lines += ["", f"motif {motif}, reverse complement {opposite}, sites: {len(sites)}"]
        for start, end, strand, bases in sites:
            lines.append(f"{strand:>6} {start:10} {end:10}  {bases}")
    return lines


# Comparison


def read_record():
    record = SeqIO.read(FASTA, "fasta")
    digest = hashlib.sha256(bytes(record.seq)).hexdigest()
    require_equal(f"{FASTA.name}: SHA-256 of the sequence", digest, SEQUENCE_SHA256)
    return record


def read_lines(path):
    """Returns the lines of a text file, each of which must end with a newline and nothing else."""
    lines = path.read_bytes().decode("ascii").split("\n")
    if lines.pop() != "":
        raise Disagreement(f"{path.name}: the last line does not end with a newline")
    return lines


def describe_difference(path, number, found, computed):
    """Returns a message about one line, naming the first word that differs if one does."""
    message = f"{path.name}, line {number}:"
    message += f"\n  the file says   {found!r}\n  Biopython says  {computed!r}"
    words = zip(found.split(), computed.split())
    differing = next(((one, other) for one, other in words if one != other), None)
    if differing:
        message += f"\n  first difference: {differing[0]} in the file, {differing[1]} by Biopython"
    return message


def compare(path, computed):
    found = read_lines(path)
    for number, (line, computed_line) in enumerate(zip(found, computed), start=1):
        if line != computed_line:
            raise Disagreement(describe_difference(path, number, line, computed_line))
    require_equal(f"{path.name}: lines in the file and computed", len(found), len(computed))


def main(arguments):
    if len(arguments) > 1:
        print("usage: check_with_biopython.py [EXPECTED_DIR]", file=sys.stderr)
        return 2
    expected = Path(arguments[0]) if arguments else HERE / "expected"
    try:
        record = read_record()
        for script in (gc_content, kmer_counts, open_reading_frames, motif_search):
            name = script.__name__
            computed = script(record)
            compare(expected / f"{name}.txt", computed)
            print(f"{name}: {len(computed)} lines agree", flush=True)
    except (Disagreement, OSError, ValueError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

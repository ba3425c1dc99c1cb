-- Occurrences of DNA motifs on both strands of a sequence.
--
-- A motif is written in IUPAC letters, each standing for a set of bases:
--
--   R = A or G    S = C or G    K = G or T    B = not A    H = not G    N = any
--   Y = C or T    W = A or T    M = A or C    D = not C    V = not T
--
-- A base that the sequence itself leaves open (N, R, …) matches no letter.
--
-- Overlapping matches all count. A match on the reverse strand is found by searching the forward
-- strand for the motif's reverse complement. A motif that is its own reverse complement (as most
-- restriction sites are) occurs on both strands at once: each place is one site, on strand "both".
--
-- Columns: the strand; start and end on the forward strand, counted from 1, start before end; the
-- bases matched, as that strand reads. Sorted by start, "+" before "-". Each record of the file is
-- reported by itself, as a linear molecule.
--
-- Usage: motif_search.lua FASTA [MOTIF...]
--
--   bioxen run --allow-read examples/data/lambda.fasta \
--     examples/motif_search.lua examples/data/lambda.fasta

local DEFAULT_MOTIFS = {
  "GAATTC", -- EcoRI
  "GGATCC", -- BamHI
  "AAGCTT", -- HindIII
  "GTYRAC", -- HincII: degenerate
  "GCTCTTC", -- SapI: not its own reverse complement
  "GCTGGTGG", -- Chi, the recombination hotspot of E. coli, which wild-type phage lambda lacks
}

local BASES = {
  A = "A", C = "C", G = "G", T = "T",
  R = "[AG]", Y = "[CT]", S = "[CG]", W = "[AT]", K = "[GT]", M = "[AC]",
  B = "[CGT]", D = "[AGT]", H = "[ACT]", V = "[ACG]", N = "[ACGT]",
}

local COMPLEMENT = {
  A = "T", C = "G", G = "C", T = "A",
  R = "Y", Y = "R", S = "S", W = "W", K = "M", M = "K",
  B = "V", D = "H", H = "D", V = "B", N = "N",
}

-- Returns the text of a file.
local function read_file(path)
  local file, open_error = io.open(path, "rb")
  if not file then error("cannot read the FASTA file: " .. open_error, 0) end
  local text, read_error = file:read("*a")
  file:close()
  if not text then error("cannot read the FASTA file `" .. path .. "`: " .. read_error, 0) end
  return text
end

-- Returns the bases of a FASTA record in upper case, without spaces and line ends.
local function bases_of(name, body)
  local sequence = body:gsub("%s+", ""):upper()
  local stray = sequence:match("[^ACGTRYSWKMBDHVN]")
  if sequence == "" then error("record `" .. name .. "` has no sequence", 0) end
  if stray then error("record `" .. name .. "` has `" .. stray .. "`, not a DNA letter", 0) end
  return sequence
end

-- Returns the records of a FASTA file in order, each with its name (the header's first word) and its
-- sequence.
local function read_fasta(path)
  local text = read_file(path)
  if not text:find("^%s*>") then
    error("`" .. path .. "` is not FASTA: it does not begin with `>`", 0)
  end
  local records = {}
  for header, body in text:gmatch(">([^\r\n]*)([^>]*)") do
    local name = header:match("%S+") or "unnamed"
    records[#records + 1] = { name = name, sequence = bases_of(name, body) }
  end
  return records
end

local function reverse_complement(sequence)
  return (sequence:reverse():gsub(".", COMPLEMENT))
end

-- Returns a motif from the command line in upper case.
local function parse_motif(text)
  local motif = text:upper()
  if not motif:find("^[ACGTRYSWKMBDHVN]+$") then
    error("`" .. text .. "` is not a motif: it may hold only the letters ACGT RYSWKM BDHV N", 0)
  end
  return motif
end

local function parse_motifs(texts)
  local motifs = {}
  for index, text in ipairs(texts) do
    motifs[index] = parse_motif(text)
  end
  return motifs
end

-- Adds to the sites every place, overlapping ones included, where the motif matches the sequence.
local function add_matches(sites, sequence, motif, strand)
  local pattern = motif:gsub(".", BASES)
  local first, last = sequence:find(pattern)
  while first do
    local bases = sequence:sub(first, last)
    if strand == "-" then bases = reverse_complement(bases) end
    sites[#sites + 1] = { strand = strand, first = first, last = last, bases = bases }
    first, last = sequence:find(pattern, first + 1)
  end
end

local function by_position(one, other)
  if one.first ~= other.first then return one.first < other.first end
  return one.strand < other.strand
end

local function find_sites(sequence, motif)
  local sites, opposite = {}, reverse_complement(motif)
  if opposite == motif then
    add_matches(sites, sequence, motif, "both")
  else
    add_matches(sites, sequence, motif, "+")
    add_matches(sites, sequence, opposite, "-")
  end
  table.sort(sites, by_position)
  return sites
end

local function print_sites(sequence, motif)
  local sites = find_sites(sequence, motif)
  local opposite = reverse_complement(motif)
  print(string.format("motif %s, reverse complement %s, sites: %d", motif, opposite, #sites))
  for _, site in ipairs(sites) do
    print(string.format("%6s %10d %10d  %s", site.strand, site.first, site.last, site.bases))
  end
end

local function main(fasta_path, ...)
  if not fasta_path then error("usage: motif_search.lua FASTA [MOTIF...]", 0) end
  local motifs = select("#", ...) > 0 and parse_motifs({ ... }) or DEFAULT_MOTIFS
  for index, record in ipairs(read_fasta(fasta_path)) do
    if index > 1 then print() end
    print("sequence: " .. record.name)
    print(string.format("length: %d", #record.sequence))
    for _, motif in ipairs(motifs) do
      print()
      print_sites(record.sequence, motif)
    end
  end
end

main(...)

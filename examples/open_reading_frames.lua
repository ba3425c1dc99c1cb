-- Open reading frames (ORFs) of a DNA sequence, in all six frames.
--
-- An ORF here runs from ATG to the first stop codon in the same frame (TAA, TAG or TGA). Each stop
-- gives at most one: the longest, which begins at the first ATG after the previous stop in that
-- frame, or after the frame's beginning. ORFs that run off the end of the sequence are left out.
--
-- Translation is by the standard genetic code, NCBI table 1. Table 11 (bacteria, archaea and plant
-- plastids) translates every codon alike and differs only in allowing more start codons; those are
-- not used here. A codon with a letter other than A, C, G and T is translated as X.
--
-- Columns: the strand; the frame, 1 to 3, counted from the beginning of that strand (the reverse
-- strand begins at the sequence's last base); start and end on the forward strand, counted from 1,
-- stop codon included, start before end on either strand; the length in amino acids, stop not
-- counted; the first 20 amino acids. Sorted by start, then end, then strand. Each record of the file
-- is reported by itself, as a linear molecule.
--
-- Usage: open_reading_frames.lua FASTA [MIN_CODONS]     least length in amino acids, 100 by default
--
--   bioxen run --allow-read examples/data/lambda.fasta \
--     examples/open_reading_frames.lua examples/data/lambda.fasta

local DEFAULT_MIN_CODONS = 100
local AMINO_ACIDS_SHOWN = 20
local COMPLEMENT = { A = "T", C = "G", G = "C", T = "A" }

-- The standard genetic code: the amino acids of TTT, TTC, TTA, TTG, TCT, …, GGG; "*" is a stop.
local CODON_LETTERS = "TCAG"
local AMINO_ACIDS = "FFLLSSSSYY**CC*W" -- first base T
  .. "LLLLPPPPHHQQRRRR" -- C
  .. "IIIMTTTTNNKKSSRR" -- A
  .. "VVVVAAAADDEEGGGG" -- G

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

-- Returns the whole number that a command-line argument gives, or the default where it is absent.
local function whole_number(name, text, default)
  if text == nil then return default end
  local number = tonumber(text:match("^%d+$") or "")
  if not number or number < 1 or number > 1e9 then
    error(name .. " must be a whole number from 1 to 1000000000, not `" .. text .. "`", 0)
  end
  return number
end

-- Returns the amino acid of each codon.
local function genetic_code()
  local code, index = {}, 0
  for first in CODON_LETTERS:gmatch(".") do
    for second in CODON_LETTERS:gmatch(".") do
      for third in CODON_LETTERS:gmatch(".") do
        index = index + 1
        code[first .. second .. third] = AMINO_ACIDS:sub(index, index)
      end
    end
  end
  return code
end

local CODE = genetic_code()

-- Returns the opposite strand. Ambiguous letters stay as they are: their codons are X either way.
local function reverse_complement(sequence)
  return (sequence:reverse():gsub(".", COMPLEMENT))
end

local function translate(sequence)
  return (sequence:gsub("...", function(codon) return CODE[codon] or "X" end))
end

-- Calls found(first, last) for the longest ORF before each stop codon of one frame: the positions on
-- that strand of its first base and of its last base before the stop.
local function each_orf(strand_sequence, frame, found)
  local first
  for position = frame, #strand_sequence - 2, 3 do
    local codon = strand_sequence:sub(position, position + 2)
    if CODE[codon] == "*" then
      if first then found(first, position - 1) end
      first = nil
    elseif codon == "ATG" and not first then
      first = position
    end
  end
end

-- Adds the ORFs of one strand to the list. `forward` turns a position on that strand into one on the
-- forward strand.
local function add_orfs(orfs, strand, strand_sequence, forward, min_codons)
  for frame = 1, 3 do
    each_orf(strand_sequence, frame, function(first, last)
      local codons = (last - first + 1) / 3
      if codons < min_codons then return end
      local one_end, other_end = forward(first), forward(last + 3)
      local shown = strand_sequence:sub(first, math.min(last, first + 3 * AMINO_ACIDS_SHOWN - 1))
      orfs[#orfs + 1] = {
        strand = strand,
        frame = frame,
        first = math.min(one_end, other_end),
        last = math.max(one_end, other_end),
        codons = codons,
        beginning = translate(shown),
      }
    end)
  end
end

local function by_position(one, other)
  if one.first ~= other.first then return one.first < other.first end
  if one.last ~= other.last then return one.last < other.last end
  return one.strand < other.strand
end

local function find_orfs(sequence, min_codons)
  local orfs = {}
  local function same(position) return position end
  local function mirrored(position) return #sequence + 1 - position end
  add_orfs(orfs, "+", sequence, same, min_codons)
  add_orfs(orfs, "-", reverse_complement(sequence), mirrored, min_codons)
  table.sort(orfs, by_position)
  return orfs
end

local function count_on_strand(orfs, strand)
  local count = 0
  for _, orf in ipairs(orfs) do
    if orf.strand == strand then count = count + 1 end
  end
  return count
end

local function report(record, min_codons)
  local orfs = find_orfs(record.sequence, min_codons)
  print("sequence: " .. record.name)
  print(string.format("length: %d", #record.sequence))
  print()
  print(string.format("%6s %5s %10s %10s %6s  %s", "strand", "frame", "start", "end", "aa", "begins"))
  for _, orf in ipairs(orfs) do
    print(string.format("%6s %5d %10d %10d %6d  %s",
      orf.strand, orf.frame, orf.first, orf.last, orf.codons, orf.beginning))
  end
  print()
  local forward, reverse = count_on_strand(orfs, "+"), count_on_strand(orfs, "-")
  print(string.format("ORFs of at least %d codons: %d (%d on the forward strand, %d on the reverse)",
    min_codons, #orfs, forward, reverse))
end

local function main(fasta_path, min_codons_text)
  if not fasta_path then error("usage: open_reading_frames.lua FASTA [MIN_CODONS]", 0) end
  local min_codons = whole_number("MIN_CODONS", min_codons_text, DEFAULT_MIN_CODONS)
  for index, record in ipairs(read_fasta(fasta_path)) do
    if index > 1 then print() end
    report(record, min_codons)
  end
end

main(...)

-- The k-mers of a DNA sequence: how many there are, how many distinct ones, and the most frequent.
--
-- A k-mer is a run of K bases; every position begins one, so neighbours overlap by K - 1. Runs that
-- hold a letter other than A, C, G and T are left out.
--
-- The canonical form of a k-mer is whichever comes first in the alphabet, the k-mer or its reverse
-- complement. Counting canonical forms counts both strands as one: the same molecule gives the same
-- counts whichever of its strands was written down.
--
-- Percentages are of all k-mers. Equal counts are listed in alphabetical order. Each record of the
-- file is reported by itself, as a linear molecule.
--
-- Usage: kmer_counts.lua FASTA [K] [TOP]    K is 6 and TOP (how many to list) is 10 by default
--
--   bioxen run --allow-read examples/data/lambda.fasta \
--     examples/kmer_counts.lua examples/data/lambda.fasta

local DEFAULT_K = 6
local DEFAULT_TOP = 10
local COMPLEMENT = { A = "T", C = "G", G = "C", T = "A" }

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

local function reverse_complement(sequence)
  return (sequence:reverse():gsub(".", COMPLEMENT))
end

-- Returns how often each k-mer occurs, and how many k-mers there are in all.
local function count_kmers(sequence, k)
  local counts, total = {}, 0
  for run in sequence:gmatch("[ACGT]+") do
    for first = 1, #run - k + 1 do
      local kmer = run:sub(first, first + k - 1)
      counts[kmer] = (counts[kmer] or 0) + 1
      total = total + 1
    end
  end
  return counts, total
end

-- Returns the counts with each k-mer and its reverse complement put together.
local function merge_strands(counts)
  local merged = {}
  for kmer, count in pairs(counts) do
    local opposite = reverse_complement(kmer)
    local canonical = kmer < opposite and kmer or opposite
    merged[canonical] = (merged[canonical] or 0) + count
  end
  return merged
end

-- Returns the counts as a list, most frequent first.
local function by_frequency(counts)
  local ranking = {}
  for kmer, count in pairs(counts) do
    ranking[#ranking + 1] = { kmer = kmer, count = count }
  end
  table.sort(ranking, function(one, other)
    if one.count ~= other.count then return one.count > other.count end
    return one.kmer < other.kmer
  end)
  return ranking
end

local function print_ranking(title, ranking, top, total)
  print(title)
  for rank = 1, math.min(top, #ranking) do
    local entry = ranking[rank]
    print(string.format("  %s %8d %8.4f %%", entry.kmer, entry.count, 100 * entry.count / total))
  end
end

local function report(record, k, top)
  local counts, total = count_kmers(record.sequence, k)
  local kmers = by_frequency(counts)
  local canonical_kmers = by_frequency(merge_strands(counts))
  print("sequence: " .. record.name)
  print(string.format("length: %d", #record.sequence))
  print(string.format("k: %d", k))
  print(string.format("k-mers: %d", total))
  print(string.format("distinct k-mers: %d", #kmers))
  print(string.format("distinct canonical k-mers: %d", #canonical_kmers))
  print()
  print_ranking("most frequent k-mers:", kmers, top, total)
  print()
  print_ranking("most frequent canonical k-mers:", canonical_kmers, top, total)
end

local function main(fasta_path, k_text, top_text)
  if not fasta_path then error("usage: kmer_counts.lua FASTA [K] [TOP]", 0) end
  local k = whole_number("K", k_text, DEFAULT_K)
  local top = whole_number("TOP", top_text, DEFAULT_TOP)
  for index, record in ipairs(read_fasta(fasta_path)) do
    if index > 1 then print() end
    report(record, k, top)
  end
end

main(...)

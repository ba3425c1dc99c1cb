-- Base composition along a DNA sequence: GC content and GC skew, overall and in windows.
--
--   GC percent = 100 (G + C) / (A + C + G + T)
--   GC skew    = (G - C) / (G + C)
--
-- Windows follow one another without overlap; the last may be shorter. Letters other than A, C, G and
-- T are counted as "other" and enter neither formula; "-" stands where a formula divides by zero.
--
-- The cumulative GC skew at position i is the number of G minus the number of C in bases 1 to i. In
-- many bacterial chromosomes its lowest point lies near the origin of replication and its highest
-- near the terminus. Where several positions share an extreme, the first is given. Positions count
-- from 1. Each record of the file is reported by itself, as a linear molecule.
--
-- Usage: gc_content.lua FASTA [WINDOW]      WINDOW in bases, 5000 by default
--
--   bioxen run --allow-read examples/data/lambda.fasta \
--     examples/gc_content.lua examples/data/lambda.fasta

local DEFAULT_WINDOW = 5000

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

local function count(sequence, base)
  local _, occurrences = sequence:gsub(base, "")
  return occurrences
end

local function composition(sequence)
  local a, c = count(sequence, "A"), count(sequence, "C")
  local g, t = count(sequence, "G"), count(sequence, "T")
  return { A = a, C = c, G = g, T = t, other = #sequence - a - c - g - t }
end

local function ratio(numerator, denominator)
  if denominator == 0 then return "-" end
  return string.format("%.4f", numerator / denominator)
end

local function gc_percent(bases)
  return ratio(100 * (bases.G + bases.C), bases.A + bases.C + bases.G + bases.T)
end

local function gc_skew(bases)
  return ratio(bases.G - bases.C, bases.G + bases.C)
end

-- Returns the first lowest and the first highest point of the cumulative GC skew.
local function cumulative_skew_extremes(sequence)
  local lowest, highest = { skew = math.huge }, { skew = -math.huge }
  local skew = 0
  for position = 1, #sequence do
    local base = sequence:sub(position, position)
    if base == "G" then
      skew = skew + 1
    elseif base == "C" then
      skew = skew - 1
    end
    if skew < lowest.skew then lowest = { skew = skew, position = position } end
    if skew > highest.skew then highest = { skew = skew, position = position } end
  end
  return lowest, highest
end

local function print_whole(record)
  local bases = composition(record.sequence)
  print("sequence: " .. record.name)
  print(string.format("length: %d", #record.sequence))
  for _, letter in ipairs({ "A", "C", "G", "T", "other" }) do
    print(string.format("%s: %d", letter, bases[letter]))
  end
  print("GC percent: " .. gc_percent(bases))
  print("GC skew: " .. gc_skew(bases))
end

local function print_windows(sequence, window)
  print(string.format("%10s %10s %11s %9s", "start", "end", "GC percent", "GC skew"))
  for first = 1, #sequence, window do
    local last = math.min(first + window - 1, #sequence)
    local bases = composition(sequence:sub(first, last))
    print(string.format("%10d %10d %11s %9s", first, last, gc_percent(bases), gc_skew(bases)))
  end
end

local function print_cumulative_skew(sequence)
  local lowest, highest = cumulative_skew_extremes(sequence)
  print(string.format("lowest cumulative GC skew: %d at %d", lowest.skew, lowest.position))
  print(string.format("highest cumulative GC skew: %d at %d", highest.skew, highest.position))
end

local function main(fasta_path, window_text)
  if not fasta_path then error("usage: gc_content.lua FASTA [WINDOW]", 0) end
  local window = whole_number("WINDOW", window_text, DEFAULT_WINDOW)
  for index, record in ipairs(read_fasta(fasta_path)) do
    if index > 1 then print() end
    print_whole(record)
    print()
    print_windows(record.sequence, window)
    print()
    print_cumulative_skew(record.sequence)
  end
end

main(...)

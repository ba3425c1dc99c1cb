-- Makes a stock Lua interpreter (5.1 to 5.4, LuaJIT) a BioXen worker, which speaks the worker
-- protocol over its standard input and output.
--
-- The controller starts the interpreter with a line of Lua that reads this file from standard input
-- and runs it; what follows on that input are frames. bioxen-core describes the protocol in
-- `protocol.rs`.
--
--   start ──hello──▶ serving ──evaluate──▶ running ──end──▶ serving
--                       │                     └─ need_input ◀─▶ stdin
--                       ├── shutdown, end of input ──▶ exit 0
--                       └── nonsense ──fatal──▶ exit 1
--
-- It leaves to others: bounding time and memory, and cancelling (without help from C an interpreter
-- cannot be interrupted, so the controller ends the process); and isolation. The checks of grants
-- here are for good messages. What holds code in is the operating system.
--
-- Code may replace every function that it can reach. So all that is needed here is captured first,
-- and the interpreter's own library tables are never handed out: each environment gets its own.

---------------------------------------------------------------------------------------------------
-- What is captured from the interpreter
---------------------------------------------------------------------------------------------------

local stock = _G
local error, next, pcall, rawget, rawset, select = error, next, pcall, rawget, rawset, select
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local collectgarbage, xpcall = collectgarbage, xpcall
local load, loadstring, setfenv, getfenv = load, loadstring, setfenv, getfenv
local byte, char, find, format = string.byte, string.char, string.find, string.format
local gmatch, gsub, match, rep = string.gmatch, string.gsub, string.match, string.rep
local pack_binary, sub = string.pack, string.sub
local concat, sort, unpack = table.concat, table.sort, table.unpack or unpack
local floor, frexp, huge = math.floor, math.frexp, math.huge
local clock, exit_process, setlocale, time = os.clock, os.exit, os.setlocale, os.time
local getinfo, sethook, stock_traceback = debug.getinfo, debug.sethook, debug.traceback
local getmetatable_raw, setmetatable_raw = debug.getmetatable, debug.setmetatable
local create_coroutine, running_coroutine = coroutine.create, coroutine.running
local stock_resume = coroutine.resume
local stock_open, stock_popen, stock_type = io.open, io.popen, io.type
local stdin, stdout = io.stdin, io.stdout
local read_from, write_to = stdin.read, stdin.write
local flush_file, close_file = stdin.flush, stdin.close
local stock_loaded = package.loaded

---------------------------------------------------------------------------------------------------
-- What this interpreter is
---------------------------------------------------------------------------------------------------

local PROTOCOL_VERSION = 1
local IS_JIT = type(jit) == "table"
-- Functions carry environments that setfenv changes, and new ones start with that of the process.
local HAS_FUNCTION_ENVIRONMENTS = setfenv ~= nil
-- LuaJIT can be built to behave in some points like 5.2; only then it has rawlen.
local LIKE_5_1 = HAS_FUNCTION_ENVIRONMENTS and rawlen == nil
local LOAD_TAKES_ENVIRONMENT = pcall(load, "")
local LOAD_STARTS_WITH_PREFIX = _VERSION >= "Lua 5.4"
local HAS_FINALIZERS = not HAS_FUNCTION_ENVIRONMENTS
local FORMATS_POINTERS = pcall(format, "%p", stock)
-- From 5.2 on the main coroutine can be named; before, `running` says nil there.
local main_coroutine = running_coroutine()
local own_info = getinfo(1, "S")
local OWN_SOURCE = own_info.source
local OWN_POSITION = gsub(own_info.short_src, "%p", "%%%0") .. ":%d+: "

local function in_main_coroutine()
  return running_coroutine() == main_coroutine
end

local function interpreter_name()
  return IS_JIT and jit.version or _VERSION
end

local function platform_name()
  if not IS_JIT then return "unknown" end
  local processors = { x64 = "x86_64", arm64 = "aarch64" }
  return string.lower(jit.os) .. "-" .. (processors[jit.arch] or jit.arch)
end

---------------------------------------------------------------------------------------------------
-- Writing MessagePack
---------------------------------------------------------------------------------------------------

local NIL, FALSE, TRUE, four_bytes, encode_integer, encode_number, bytes_header, encode_text,
  array_header, map_header
do
  NIL, FALSE, TRUE = "\192", "\194", "\195"

  function four_bytes(number)
    return char(
      floor(number / 16777216) % 256,
      floor(number / 65536) % 256,
      floor(number / 256) % 256,
      number % 256
    )
  end

  function encode_integer(number)
    if number >= 0 and number < 128 then return char(number) end
    if number >= 0 and number < 65536 then return char(205, floor(number / 256), number % 256) end
    if pack_binary then return "\211" .. pack_binary(">i8", number) end
    local high = floor(number / 4294967296) % 4294967296
    return "\211" .. four_bytes(high) .. four_bytes(number % 4294967296)
  end

  -- Exponent and fraction of a positive number that is not infinite, as IEEE 754 stores them.
  local function float_parts(number)
    local fraction, exponent = frexp(number)
    exponent = exponent + 1022
    if exponent > 0 then return exponent, (fraction * 2 - 1) * 2 ^ 52 end
    return 0, fraction * 2 ^ (52 + exponent)
  end

  local function encode_float(number)
    if number ~= number then return "\203\127\248\0\0\0\0\0\0" end
    if pack_binary then return "\203" .. pack_binary(">d", number) end
    local sign, exponent, fraction = 0, 0, 0
    if number < 0 or 1 / number < 0 then sign, number = 2147483648, -number end
    if number == huge then
      exponent = 2047
    elseif number ~= 0 then
      exponent, fraction = float_parts(number)
    end
    local high = sign + exponent * 1048576 + floor(fraction / 4294967296)
    return "\203" .. four_bytes(high) .. four_bytes(fraction % 4294967296)
  end

  if math.type then
    local kind_of = math.type
    function encode_number(number)
      return kind_of(number) == "integer" and encode_integer(number) or encode_float(number)
    end
  else
    -- Where there are only floats, whole ones that are exact count as integers; -0 is none.
    function encode_number(number)
      local is_exact = number % 1 == 0 and number > -2 ^ 53 and number < 2 ^ 53
      if is_exact and not (number == 0 and 1 / number < 0) then return encode_integer(number) end
      return encode_float(number)
    end
  end

  function bytes_header(length)
    return length < 256 and "\196" .. char(length) or "\198" .. four_bytes(length)
  end

  -- How many bytes the UTF-8 character at a position has, or nil where there is none.
  local function character_length(text, start)
    local first, second, third, fourth = byte(text, start, start + 3)
    local function continues(one, lowest, highest)
      return one and one >= (lowest or 128) and one <= (highest or 191)
    end
    if first < 194 then return nil end
    if first < 224 then return continues(second) and 2 end
    if first < 240 then
      local lowest, highest = first == 224 and 160, first == 237 and 159
      return continues(second, lowest, highest) and continues(third) and 3
    end
    if first > 244 then return nil end
    local lowest, highest = first == 240 and 144, first == 244 and 143
    return continues(second, lowest, highest) and continues(third) and continues(fourth) and 4
  end

  -- The text with a replacement character for each byte that is not UTF-8.
  local function valid_text(text)
    local special = find(text, "[\128-\255]")
    if not special then return text end
    local pieces, start = {}, 1
    while true do
      special = find(text, "[\128-\255]", start)
      pieces[#pieces + 1] = sub(text, start, special and special - 1)
      if not special then return concat(pieces) end
      local length = character_length(text, special)
      pieces[#pieces + 1] = length and sub(text, special, special + length - 1) or "\239\191\189"
      start = special + (length or 1)
    end
  end

  -- What is meant for people to read, which has to be UTF-8.
  function encode_text(text)
    text = valid_text(text)
    local length = #text
    return (length < 32 and char(160 + length) or "\219" .. four_bytes(length)) .. text
  end

  function array_header(count)
    return count < 16 and char(144 + count) or "\221" .. four_bytes(count)
  end

  function map_header(count)
    return count < 16 and char(128 + count) or "\223" .. four_bytes(count)
  end
end

---------------------------------------------------------------------------------------------------
-- Reading MessagePack
---------------------------------------------------------------------------------------------------

local decode_request
do
  local payload, position
  local decode

  -- Steps over bytes; returns where they start.
  local function take(count)
    local start = position
    position = start + count
    if position > #payload + 1 then error("it ends too early", 0) end
    return start
  end

  local function read_unsigned(count)
    local start, number = take(count), 0
    for index = start, start + count - 1 do
      number = number * 256 + byte(payload, index)
    end
    -- Integers of 64 bits have wrapped around; as a float it is at least about right.
    return number >= 0 and number or number + 2 ^ 64
  end

  local SPANS = { [1] = 256, [2] = 65536, [4] = 4294967296, [8] = 2 ^ 64 }

  local function read_signed(count)
    local is_negative = (byte(payload, position) or 0) >= 128
    local start, number = take(count), 0
    for index = start, start + count - 1 do
      number = number * 256 + byte(payload, index)
    end
    if is_negative and number >= 0 then number = number - SPANS[count] end
    return number
  end

  local function assemble_float(is_negative, exponent, fraction, bias, fraction_bits)
    local number
    if exponent == 2 * bias + 1 then
      number = fraction == 0 and huge or huge - huge
    elseif exponent == 0 then
      number = fraction * 2 ^ (1 - bias - fraction_bits)
    else
      number = (fraction + 2 ^ fraction_bits) * 2 ^ (exponent - bias - fraction_bits)
    end
    return is_negative and -number or number
  end

  local function read_float32()
    local bits = read_unsigned(4)
    local exponent = floor(bits / 8388608) % 256
    return assemble_float(bits >= 2147483648, exponent, bits % 8388608, 127, 23)
  end

  local function read_float64()
    local high, low = read_unsigned(4), read_unsigned(4)
    local exponent, fraction = floor(high / 1048576) % 2048, (high % 1048576) * 4294967296.0 + low
    return assemble_float(high >= 2147483648, exponent, fraction, 1023, 52)
  end

  local function read_bytes(count)
    local start = take(count)
    return sub(payload, start, start + count - 1)
  end

  local function read_array(count)
    local items = {}
    for index = 1, count do
      items[index] = decode()
    end
    return items
  end

  local function read_map(count)
    local entries = {}
    for _ = 1, count do
      local key = decode()
      if key == nil or key ~= key then error("a map has an impossible key", 0) end
      entries[key] = decode()
    end
    return entries
  end

  -- By first byte: the reader, and the size of what it reads or of the length before it.
  local LENGTH_THEN = {
    [196] = { 1, read_bytes }, [197] = { 2, read_bytes }, [198] = { 4, read_bytes },
    [217] = { 1, read_bytes }, [218] = { 2, read_bytes }, [219] = { 4, read_bytes },
    [220] = { 2, read_array }, [221] = { 4, read_array },
    [222] = { 2, read_map }, [223] = { 4, read_map },
  }
  local OF_FIXED_SIZE = {
    [204] = { 1, read_unsigned }, [205] = { 2, read_unsigned }, [206] = { 4, read_unsigned },
    [207] = { 8, read_unsigned }, [208] = { 1, read_signed }, [209] = { 2, read_signed },
    [210] = { 4, read_signed }, [211] = { 8, read_signed },
    [202] = { 4, read_float32 }, [203] = { 8, read_float64 },
  }

  local function decode_marked(first)
    if first == 192 then return nil end
    if first == 194 or first == 195 then return first == 195 end
    local rule = LENGTH_THEN[first]
    if rule then return rule[2](read_unsigned(rule[1])) end
    rule = OF_FIXED_SIZE[first]
    if rule then return rule[2](rule[1]) end
    error("it has the byte " .. first .. " where a value should start", 0)
  end

  function decode()
    local first = byte(payload, position)
    if not first then error("it ends too early", 0) end
    position = position + 1
    if first < 128 then return first end
    if first >= 224 then return first - 256 end
    if first >= 192 then return decode_marked(first) end
    if first >= 160 then return read_bytes(first - 160) end
    if first >= 144 then return read_array(first - 144) end
    return read_map(first - 128)
  end

  -- The name of a request and its fields.
  function decode_request(bytes)
    payload, position = bytes, 1
    local request = decode()
    if position ~= #payload + 1 then error("more bytes follow it", 0) end
    payload = nil
    if type(request) == "string" then return request end
    if type(request) ~= "table" then error("it is no request", 0) end
    local name, fields = next(request)
    if type(name) ~= "string" or next(request, name) ~= nil then error("it is no request", 0) end
    return name, fields
  end
end

---------------------------------------------------------------------------------------------------
-- The connection
---------------------------------------------------------------------------------------------------

local LARGEST_REQUEST, send, flush_connection, fatal, receive
do
  LARGEST_REQUEST = 268435456

  -- One call per frame: a finalizer that writes may run between two.
  function send(start, rest)
    local header = four_bytes(#start + #rest) .. start
    if not write_to(stdout, header, rest) then exit_process(1) end
  end

  function flush_connection()
    if not flush_file(stdout) then exit_process(1) end
  end

  local function show_start(bytes)
    local start = gsub(sub(bytes, 1, 32), "[^ -~]", function(character)
      return format("\\x%02x", byte(character))
    end)
    return '"' .. start .. '"'
  end

  function fatal(text)
    send("\129\165fatal", encode_text(text))
    flush_connection()
    exit_process(1)
  end

  function receive()
    local header = read_from(stdin, 4)
    if not header or #header < 4 then exit_process(0) end
    local first, second, third, fourth = byte(header, 1, 4)
    local length = ((first * 256 + second) * 256 + third) * 256 + fourth
    if length > LARGEST_REQUEST then
      fatal(format(
        "a frame claims %.0f bytes where at most %d are accepted; it starts with %s",
        length, LARGEST_REQUEST, show_start(header)
      ))
    end
    local bytes = length == 0 and "" or read_from(stdin, length)
    if not bytes or #bytes < length then exit_process(0) end
    local understood, name, fields = pcall(decode_request, bytes)
    if not understood then
      fatal(format(
        "a frame of %d bytes is no request (%s); it starts with %s",
        length, tostring(name), show_start(bytes)
      ))
    end
    return name, fields
  end
end

---------------------------------------------------------------------------------------------------
-- The evaluation that runs, and how it is ended from within
---------------------------------------------------------------------------------------------------

local running_id -- nil between two evaluations
local ending -- why it ends before its code does: "exit", "output" or "cancelled"
local exit_code
local variables = {} -- what os.getenv sees
local working_directory -- absolute, or nil while none was named
local grants = { read = {}, write = {}, env = {}, spawn = false }

-- What is raised to end the code. It is no error, and nothing that catches errors can keep it.
local STOP = setmetatable({}, {
  __metatable = false,
  __tostring = function() return "the evaluation is ending" end,
})

-- Runs before each instruction once the evaluation ends, so that a pcall catches STOP for nothing.
local function insist()
  if ending and getinfo(2, "S").source ~= OWN_SOURCE then error(STOP, 0) end
end

-- Hooks belong to coroutines; resuming passes STOP on through those that are not hooked here.
local function stop(reason)
  if running_id then
    ending = ending or reason
    sethook(insist, "", 1)
    if main_coroutine then sethook(main_coroutine, insist, "", 1) end
  end
  error(STOP, 0)
end

-- Raises an error that names the place in the running code which called a function of ours.
local function complain(message)
  local level = 2
  local info = getinfo(level, "S")
  while info and (info.source == OWN_SOURCE or info.what == "tail") do
    level = level + 1
    info = getinfo(level, "S")
  end
  error(message, level)
end

-- Passes on what a stock function returned. Its errors look as if the running code had called it,
-- which did not give the first `hidden` of its arguments.
local function finish_call(name, hidden, succeeded, ...)
  if succeeded then return ... end
  local message = ...
  if type(message) ~= "string" then error(message, 0) end
  complain((gsub(message, "^bad argument #(%d+) to '[^']*'", function(number)
    return format("bad argument #%d to '%s'", number - hidden, name)
  end)))
end

local function call_as(name, hidden, stock_function, ...)
  return finish_call(name, hidden, pcall(stock_function, ...))
end

local function bad_argument(number, name, problem)
  complain(format("bad argument #%d to '%s' (%s)", number, name, problem))
end

local function text_argument(value, number, name)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" then return tostring(value) end
  bad_argument(number, name, "string expected, got " .. (kind == "nil" and "no value" or kind))
end

---------------------------------------------------------------------------------------------------
-- Output
---------------------------------------------------------------------------------------------------

local room, cut, unbuffered, accept, put, settle, drain, flush_output, write_values
do
  local LARGEST_BUFFER = 32768
  local LARGEST_OUTPUT_FRAME = 262144
  -- Writes in each second that are sent at once: what little code says arrives before it hangs or
  -- is killed, and code that says much does not pay for it.
  local PROMPT_WRITES = 1000
  local OUTPUT_START = {
    stdout = "\129\166output\146\166stdout",
    stderr = "\129\166output\146\166stderr",
  }

  local waiting, waiting_count, waiting_size = {}, 0, 0
  local waiting_stream = "stdout"
  cut = { stdout = false, stderr = false }
  unbuffered = { stdout = false, stderr = false }
  local prompt_second, prompt_left = 0, 0

  local function send_output(stream, bytes)
    local length = #bytes
    if length == 0 then return end
    if length <= LARGEST_OUTPUT_FRAME then
      return send(OUTPUT_START[stream] .. bytes_header(length), bytes)
    end
    for start = 1, length, LARGEST_OUTPUT_FRAME do
      send_output(stream, sub(bytes, start, start + LARGEST_OUTPUT_FRAME - 1))
    end
  end

  -- Moves what waits into the connection's own buffer.
  function drain()
    if waiting_count == 0 then return end
    local replacement = {}
    local pieces, count = waiting, waiting_count
    waiting, waiting_count, waiting_size = replacement, 0, 0
    send_output(waiting_stream, concat(pieces, "", 1, count))
  end

  function flush_output()
    drain()
    flush_connection()
  end

  -- What is empty, large, of the other stream or at the limit.
  local function accept_unusual(stream, text)
    if not running_id or text == "" then return true end
    if ending then
      cut[stream] = cut[stream] or ending == "output"
      return false
    end
    drain()
    waiting_stream = stream
    if #text > room then
      send_output(stream, sub(text, 1, room))
      ending, cut[stream] = "output", true
      flush_connection()
      return false
    end
    room = room - #text
    send_output(stream, text)
    return true
  end

  -- Takes output; returns false when it is too much, and the evaluation is to end.
  function accept(stream, text)
    local length = #text
    if stream ~= waiting_stream or length == 0 or length > room or length >= LARGEST_BUFFER
      or ending or not running_id then
      return accept_unusual(stream, text)
    end
    room = room - length
    waiting_count, waiting_size = waiting_count + 1, waiting_size + length
    waiting[waiting_count] = text
    if waiting_size >= LARGEST_BUFFER then drain() end
    return true
  end

  function put(stream, text)
    if not accept(stream, text) then stop("output") end
  end

  -- Follows each writing function.
  function settle(stream)
    local now = time()
    if now ~= prompt_second then prompt_second, prompt_left = now, PROMPT_WRITES end
    if prompt_left > 0 or unbuffered[stream] then
      prompt_left = prompt_left - 1
      flush_output()
    end
  end

  local number_text = tostring
  if math.type and _VERSION < "Lua 5.5" then
    local kind_of = math.type
    -- Writing 1.0 gives "1", unlike tostring.
    function number_text(number)
      return kind_of(number) == "integer" and tostring(number) or format("%.14g", number)
    end
  end

  local function put_value(stream, value, number)
    local kind = type(value)
    if kind == "number" then
      value = number_text(value)
    elseif kind ~= "string" then
      bad_argument(number, "write", "string expected, got " .. kind)
    end
    put(stream, value)
  end

  function write_values(stream, ...)
    local count = select("#", ...)
    if count == 1 then
      put_value(stream, (...), 1)
    else
      local values = { ... }
      for number = 1, count do
        put_value(stream, values[number], number)
      end
    end
    settle(stream)
  end
end

---------------------------------------------------------------------------------------------------
-- Input
---------------------------------------------------------------------------------------------------

local forget_input, read_input, read_rest
do
  local input, input_at = "", 1 -- what arrived, and the first byte of it that was not read
  local input_is_over = false

  function forget_input()
    input, input_at, input_is_over = "", 1, false
  end

  -- Waits for more input, which takes the place of what is there; returns whether there was some.
  local function pull()
    if input_is_over or not running_id then return false end
    flush_output()
    send("\129\170need_input", encode_integer(running_id))
    flush_connection()
    while true do
      local name, fields = receive()
      if name == "stdin" and type(fields) == "string" then
        input, input_at = fields, 1
        input_is_over = fields == ""
        return not input_is_over
      elseif name == "shutdown" then
        exit_process(0)
      elseif name ~= "cancel" then
        fatal("while code waits for input comes `" .. name .. "`")
      elseif fields == running_id then
        stop("cancelled")
      end
    end
  end

  -- Reads up to where `locate`, given bytes and a position, finds the end, or to the end of input.
  local function read_until(locate)
    local pieces, count = {}, 0
    while true do
      local last = locate(input, input_at)
      local piece = sub(input, input_at, last)
      if piece ~= "" then
        count = count + 1
        pieces[count] = piece
      end
      input_at = last and last + 1 or #input + 1
      if last or not pull() then return count > 0 and concat(pieces) or nil end
    end
  end

  local function find_line_end(bytes, start)
    return (find(bytes, "\n", start, true))
  end

  local function find_no_end() end

  local function read_line(keeps_end)
    local line = read_until(find_line_end)
    if line and not keeps_end and byte(line, -1) == 10 then return sub(line, 1, -2) end
    return line
  end

  local function has_input()
    return input_at <= #input or pull()
  end

  local function read_count(count)
    if count == 0 then return has_input() and "" or nil end
    return read_until(function(bytes, start)
      local available = #bytes - start + 1
      if available >= count then return start + count - 1 end
      count = count - available
    end)
  end

  -- Reads one character if it is among those of the set.
  local function read_one(set)
    if not has_input() then return "" end
    local character = sub(input, input_at, input_at)
    if not find(character, set) then return "" end
    input_at = input_at + 1
    return character
  end

  local function read_all_of(set)
    local characters, count = {}, 0
    repeat
      count = count + 1
      characters[count] = read_one(set)
    until characters[count] == "" or count > 200
    return concat(characters)
  end

  local function read_number()
    read_all_of("%s")
    local text = read_one("[+-]")
    local digits, exponent = "%d", "[eE]"
    local zero = read_one("0")
    local x = zero ~= "" and read_one("[xX]") or ""
    if x ~= "" then digits, exponent = "%x", "[pP]" end
    text = text .. zero .. x .. read_all_of(digits) .. read_one("%.") .. read_all_of(digits)
    local mark = read_one(exponent)
    if mark ~= "" then text = text .. mark .. read_one("[+-]") .. read_all_of("%d") end
    return tonumber(text)
  end

  function read_rest()
    return read_until(find_no_end) or ""
  end

  local READERS = {
    n = read_number,
    l = function() return read_line(false) end,
    L = function() return read_line(true) end,
    a = read_rest,
  }

  local function read_item(wanted, number)
    if type(wanted) == "number" then return read_count(wanted) end
    local reader = READERS[match(text_argument(wanted, number, "read"), "^%*?(.)")]
    if not reader then bad_argument(number, "read", "invalid format") end
    return reader()
  end

  function read_input(...)
    local count = select("#", ...)
    if count == 0 then return read_line(false) end
    local wanted, items = { ... }, {}
    for number = 1, count do
      local item = read_item(wanted[number], number)
      items[number] = item
      if item == nil then return unpack(items, 1, number) end
    end
    return unpack(items, 1, count)
  end
end

---------------------------------------------------------------------------------------------------
-- Values as data
---------------------------------------------------------------------------------------------------

local TOO_LARGE, stream_of, raw_text, encode_values
do
  local DEEPEST_VALUE = 32
  TOO_LARGE = {}
  -- Bytes that a value costs besides its contents, roughly.
  local OVERHEAD = 4

  stream_of = setmetatable({}, { __mode = "k" }) -- our stdin, stdout and stderr objects, by object
  local encoded, encoded_count = {}, 0
  local value_room -- bytes that values may still take
  local enclosing = {} -- tables around the one being encoded
  local encode_value

  local function emit(bytes)
    encoded_count = encoded_count + 1
    encoded[encoded_count] = bytes
  end

  local function charge(size)
    value_room = value_room - size
    if value_room < 0 then error(TOO_LARGE, 0) end
  end

  -- Type and address, as tostring writes them where there is no metatable.
  function raw_text(value)
    local metatable = getmetatable_raw(value)
    if not metatable or type(value) == "cdata" then return tostring(value) end
    local kind = stream_of[value] and "userdata" or type(value)
    if FORMATS_POINTERS then return kind .. ": " .. format("%p", value) end
    setmetatable_raw(value, nil)
    local text = tostring(value)
    setmetatable_raw(value, metatable)
    return kind .. match(text, ": .*")
  end

  local function is_array(table_value, count)
    for index = 1, count do
      if rawget(table_value, index) == nil then return false end
    end
    return true
  end

  local function by_raw_text(one, other)
    return raw_text(one) < raw_text(other)
  end

  local function append_all(list, more)
    for index = 1, #more do
      list[#list + 1] = more[index]
    end
  end

  -- Numbers by value, then strings by their bytes, then the rest.
  local function sorted_keys(table_value)
    local numbers, strings, others = {}, {}, {}
    for key in next, table_value do
      local kind = type(key)
      local list = kind == "number" and numbers or kind == "string" and strings or others
      list[#list + 1] = key
    end
    sort(numbers)
    sort(strings)
    sort(others, by_raw_text)
    append_all(numbers, strings)
    append_all(numbers, others)
    return numbers
  end

  local function encode_table(table_value, depth)
    local count = 0
    for _ in next, table_value do
      count = count + 1
    end
    if is_array(table_value, count) then
      emit(array_header(count))
      for index = 1, count do
        encode_value(rawget(table_value, index), depth + 1)
      end
      return
    end
    emit(map_header(count))
    local keys = sorted_keys(table_value)
    for index = 1, count do
      encode_value(keys[index], depth + 1)
      encode_value(rawget(table_value, keys[index]), depth + 1)
    end
  end

  function encode_value(value, depth)
    charge(OVERHEAD)
    local kind = type(value)
    if kind == "nil" then
      emit(NIL)
    elseif kind == "boolean" then
      emit(value and TRUE or FALSE)
    elseif kind == "number" then
      emit(encode_number(value))
    elseif kind == "string" then
      charge(#value)
      emit(bytes_header(#value))
      emit(value)
    elseif kind ~= "table" or depth > DEEPEST_VALUE or enclosing[value] or stream_of[value] then
      emit(encode_text(raw_text(value)))
    else
      enclosing[value] = true
      encode_table(value, depth)
      enclosing[value] = nil
    end
  end

  -- The values as a MessagePack array, which `limit` bytes bound.
  function encode_values(values, count, limit)
    encoded, encoded_count, enclosing, value_room = {}, 0, {}, limit
    emit(array_header(count))
    for index = 1, count do
      encode_value(values[index], 1)
    end
    local pieces = encoded
    encoded = {}
    return concat(pieces, "", 1, encoded_count)
  end
end

---------------------------------------------------------------------------------------------------
-- Errors as data
---------------------------------------------------------------------------------------------------

local frames_below, error_message, clean_traceback, encode_error
do
  local LARGEST_MESSAGE = 65536
  local OWN_LINE = "^\t" .. OWN_POSITION .. "in (.*)$"
  local ERROR_LINE = "\t[C]: in function 'error'"
  local TAIL_CALL = "^\t%(%.*tail call"

  -- Calls tostring. Returns the text, or nil and why there is none.
  local function try_tostring(value)
    local metatable = getmetatable_raw(value)
    -- LuaJIT would run for ever, where others overflow their stack.
    local calls_itself = metatable and rawget(metatable, "__tostring") == tostring
    if calls_itself then return nil, "it calls itself" end
    local succeeded, text = pcall(tostring, value)
    if succeeded and type(text) == "string" then return text end
    if succeeded then return nil, "it returned a " .. type(text) .. " value" end
    return nil, type(text) == "string" and text or raw_text(text)
  end

  function error_message(value)
    if type(value) == "string" then return (gsub(value, "^" .. OWN_POSITION, "")) end
    local text, problem = try_tostring(value)
    return text or "(error object: its __tostring failed: " .. problem .. ")"
  end

  local function stock_line(name)
    return "\t[C]: in " .. (name ~= "" and "function " .. name or "?")
  end

  -- The lines of a traceback, but for the `hidden` last ones, with those of functions of ours made
  -- one that looks as the stock function's would.
  local function show_as_stock(lines, count)
    local kept, stands_for = {}, nil
    for index = 1, count do
      local line = lines[index]
      local name = match(line, OWN_LINE)
      if name then
        if not stands_for and #kept == 2 and kept[2] == ERROR_LINE then kept[2] = nil end
        stands_for = match(name, "'[^']*'") or ""
      elseif stands_for and find(line, TAIL_CALL) then
        stands_for = "" -- the name was of something inside
      else
        if stands_for then kept[#kept + 1] = stock_line(stands_for) end
        stands_for = nil
        kept[#kept + 1] = line
      end
    end
    if stands_for then kept[#kept + 1] = stock_line(stands_for) end
    return kept
  end

  function clean_traceback(text, hidden)
    local lines, count = {}, 0
    for line in gmatch(text, "[^\n]+") do
      count = count + 1
      lines[count] = line
    end
    count = count - hidden
    if hidden > 0 and find(lines[count] or "", TAIL_CALL) then count = count - 1 end
    return concat(show_as_stock(lines, count), "\n")
  end

  -- Message, traceback and value of an error. The value counts against `limit`.
  function encode_error(value, traceback, limit)
    local message = sub(error_message(value), 1, LARGEST_MESSAGE)
    local value_bytes = NIL
    if type(value) ~= "string" then
      local fits, bytes = pcall(encode_values, { value }, 1, limit)
      if fits then value_bytes = sub(bytes, 2) end
    end
    local traceback_bytes = NIL
    if traceback then
      traceback_bytes = encode_text(clean_traceback(traceback, frames_below + 1))
    end
    return "\147" .. encode_text(message) .. traceback_bytes .. value_bytes
  end
end

---------------------------------------------------------------------------------------------------
-- Grants
---------------------------------------------------------------------------------------------------

local NO_SPAWN, NOT_PERMITTED, until_zero, resolve, is_readable, permit_reading, permit_writing,
  configure
do
  NOT_PERMITTED = 13
  NO_SPAWN = "starting programs was not granted; allow it with --allow-spawn"

  -- What C would see of a string.
  function until_zero(text)
    local zero = find(text, "\0", 1, true)
    return zero and sub(text, 1, zero - 1) or text
  end

  -- A path as an absolute one without `.` and `..`, or nil where that cannot be told.
  function resolve(path)
    if path == "" then return nil end
    if byte(path) ~= 47 then
      if not working_directory then return nil end
      path = working_directory .. "/" .. path
    end
    local parts, count = {}, 0
    for part in gmatch(path, "[^/]+") do
      if part == ".." then
        count = count > 0 and count - 1 or 0
      elseif part ~= "." then
        count = count + 1
        parts[count] = part
      end
    end
    return "/" .. concat(parts, "/", 1, count)
  end

  local function is_covered(path, granted)
    for index = 1, #granted do
      local directory = granted[index]
      local after = byte(path, #directory + 1)
      if directory == "/" then return true end
      local ends_there = after == nil or after == 47
      if ends_there and sub(path, 1, #directory) == directory then return true end
    end
    return false
  end

  function is_readable(path)
    return is_covered(path, grants.read) or is_covered(path, grants.write)
  end

  local function refuse(path, what, flag)
    local hint = "; allow it with " .. flag .. " " .. path
    return nil, path .. ": " .. what .. " it was not granted" .. hint, NOT_PERMITTED
  end

  -- Returns the path to use, or what a function of the io library returns on failure.
  function permit_reading(path)
    local absolute = resolve(path)
    if absolute and is_readable(absolute) then return absolute end
    return refuse(path, "reading", "--allow-read")
  end

  function permit_writing(path)
    local absolute = resolve(path)
    if absolute and is_covered(absolute, grants.write) then return absolute end
    return refuse(path, "writing", "--allow-write")
  end

  local function to_set(list)
    local set = {}
    for index = 1, #list do
      set[list[index]] = true
    end
    return set
  end

  function configure(fields)
    local read, write, _, env, spawn = unpack(fields, 1, 5)
    grants.read, grants.write = read or {}, write or {}
    grants.env, grants.spawn = to_set(env or {}), spawn == true
  end
end

---------------------------------------------------------------------------------------------------
-- Files
---------------------------------------------------------------------------------------------------

-- A stock message about `absolute`, speaking of the path as it was given.
local function with_given_path(message, absolute, path)
  if message and sub(message, 1, #absolute) == absolute then
    return path .. sub(message, #absolute + 1)
  end
  return message
end

-- As io.open; what it opens is remembered in `files`.
local function open_file(files, path, mode)
  path = until_zero(path)
  if path == "" then return nil, ": No such file or directory", 2 end
  local only_reads = not mode or (sub(mode, 1, 1) == "r" and not find(mode, "+", 1, true))
  local absolute, problem, code = (only_reads and permit_reading or permit_writing)(path)
  if not absolute then return nil, problem, code end
  local file
  file, problem, code = call_as("open", 0, stock_open, absolute, mode)
  if not file then return nil, with_given_path(problem, absolute, path), code end
  files[file] = true
  return file
end

-- All that a file contains, or nil and a message.
local function read_file(path)
  local absolute, problem = permit_reading(until_zero(path))
  if not absolute then return nil, problem end
  local file
  file, problem = stock_open(absolute, "rb")
  if not file then return nil, "cannot open " .. with_given_path(problem, absolute, path) end
  local bytes
  bytes, problem = read_from(file, "*a")
  close_file(file)
  if not bytes then return nil, "cannot read " .. path .. ": " .. problem end
  return bytes
end

-- Data that running code wrote into files is not to wait for the collector.
local function settle_files(files, closes)
  for file in next, files do
    if stock_type(file) == "file" then (closes and close_file or flush_file)(file) end
  end
end

---------------------------------------------------------------------------------------------------
-- Programs
---------------------------------------------------------------------------------------------------

local in_context, run_program
do
  -- Descriptors 0 and 1 of this process are the connection, which programs must neither read nor
  -- write. With io.popen, the stream that the code does not hold is /dev/null, and so is standard
  -- error. With os.execute, a shell passes the program's standard output on as it comes, collects
  -- its standard error in a variable, and writes that and the exit status after a mark. So both
  -- arrive exactly (but for NUL bytes in standard error) and apart, and no file is needed.

  local marks = 0

  local function shell_quoted(text)
    return "'" .. gsub(text, "'", "'\\''") .. "'"
  end

  -- Gives programs the evaluation's variables and directory, which this process cannot take on.
  function in_context(command)
    local lines = {}
    for name, value in next, variables do
      if find(name, "^[%a_][%w_]*$") then
        lines[#lines + 1] = "export " .. name .. "=" .. shell_quoted(until_zero(value))
      end
    end
    if working_directory then
      lines[#lines + 1] = "cd " .. shell_quoted(working_directory) .. " || exit 126"
    end
    lines[#lines + 1] = until_zero(command)
    return concat(lines, "\n")
  end

  local function new_mark()
    marks = marks + 1
    return format("%d.%d.", time(), marks) .. gsub(tostring({}), "%W", "")
  end

  -- Passes output on up to the mark; returns what follows it, or nil where none came.
  local function pass_output_on(pipe, mark)
    local tail = ""
    while true do
      local bytes = read_from(pipe, 4096)
      if not bytes then
        accept("stdout", tail)
        return nil
      end
      bytes = tail .. bytes
      local start, last = find(bytes, mark, 1, true)
      if start then
        accept("stdout", sub(bytes, 1, start - 1))
        return sub(bytes, last + 1) .. read_from(pipe, "*a")
      end
      tail = sub(bytes, -#mark)
      local accepted = accept("stdout", sub(bytes, 1, -#mark - 1))
      settle("stdout")
      if not accepted then return nil end
    end
  end

  -- Runs a command to its end; returns its exit status.
  function run_program(command)
    local mark = new_mark()
    local quoted = shell_quoted(in_context(command))
    local script = "exec 3>&1 </dev/null 2>/dev/null\n"
      .. "errors=$(/bin/sh -c " .. quoted .. " 2>&1 >&3 3>&-; printf :%d $?)\n"
      .. "printf '\\000" .. mark .. "%s' \"$errors\""
    flush_output()
    local pipe = stock_popen(script, "r")
    if not pipe then return 127 end
    local rest = pass_output_on(pipe, "\0" .. mark)
    close_file(pipe)
    local errors, status = match(rest or "", "^(.*):(%d+)")
    if errors then accept("stderr", errors) end
    if ending then stop("output") end
    settle("stderr")
    return tonumber(status) or 126
  end
end

---------------------------------------------------------------------------------------------------
-- Loading code
---------------------------------------------------------------------------------------------------

local PRECOMPILED = "precompiled code is refused; load its source instead"

-- The name of a chunk, which cannot pass for ours.
local function foreign_name(name)
  return name == OWN_SOURCE and "=?" or name
end

local function compile(code, name, globals)
  if byte(code) == 27 then return nil, PRECOMPILED end
  name = foreign_name(name)
  if LOAD_TAKES_ENVIRONMENT then return load(code, name, "t", globals) end
  local chunk, message = loadstring(code, name)
  if chunk then setfenv(chunk, globals) end
  return chunk, message
end

-- A file's bytes as code: without the mark of an encoding and a first line for the system.
local function code_of_file(bytes)
  if sub(bytes, 1, 3) == "\239\187\191" then bytes = sub(bytes, 4) end
  if byte(bytes) ~= 35 then return bytes end
  local line_end = find(bytes, "\n", 1, true)
  return line_end and sub(bytes, line_end) or ""
end

-- Compiles what a function returns piece by piece.
local function compile_pieces(reader, name, globals)
  name = foreign_name(name)
  if LOAD_TAKES_ENVIRONMENT then return load(reader, name, "t", globals) end
  local is_first = true
  local chunk, message = load(function()
    local piece = reader()
    if is_first and type(piece) == "string" and byte(piece) == 27 then error(PRECOMPILED, 0) end
    is_first = false
    return piece
  end, name)
  if chunk then setfenv(chunk, globals) end
  return chunk, message
end

-- The loading functions catch errors themselves, and with them STOP.
local function finish_loading(chunk, message)
  if chunk then return chunk end
  if ending then stop() end
  return nil, message
end

---------------------------------------------------------------------------------------------------
-- The environment's libraries: what is taken over as it is
---------------------------------------------------------------------------------------------------

local BASE_FUNCTIONS = {
  "_VERSION", "assert", "collectgarbage", "error", "gcinfo", "getmetatable", "ipairs", "next",
  "pairs", "pcall", "rawequal", "rawget", "rawlen", "rawset", "select", "setmetatable", "tonumber",
  "tostring", "type", "unpack", "xpcall",
}
-- Libraries that touch nothing outside the interpreter.
local PURE_LIBRARIES = { "bit", "bit32", "coroutine", "math", "string", "table", "utf8" }
local JIT_FIELDS = { "arch", "flush", "off", "on", "os", "status", "version", "version_num" }
local OS_FUNCTIONS = { "clock", "date", "difftime", "time" }

local function pick(library, names)
  local picked = {}
  for index = 1, #names do
    picked[names[index]] = library[names[index]]
  end
  return picked
end

local function copy(original)
  local duplicate = {}
  for key, value in next, original do
    duplicate[key] = value
  end
  return duplicate
end

-- Requiring these adds to the library tables, so they are copied first.
local pristine = {}
for _, name in next, PURE_LIBRARIES do
  pristine[name] = type(stock[name]) == "table" and copy(stock[name]) or nil
end
pristine.string.dump = nil

---------------------------------------------------------------------------------------------------
-- The environment's libraries: base and coroutine
---------------------------------------------------------------------------------------------------

local add_print, add_warn, add_coroutine
do
  local PRINT_USES_GLOBAL = _VERSION < "Lua 5.4"

  function add_print(globals)
    local function put_printed(value, number)
      local convert = PRINT_USES_GLOBAL and globals.tostring or tostring
      if type(value) ~= "string" or convert ~= tostring then
        value = convert(value)
        if LIKE_5_1 and type(value) == "number" then value = tostring(value) end
        if type(value) ~= "string" then complain("'tostring' must return a string to 'print'") end
      end
      if number > 1 then put("stdout", "\t") end
      put("stdout", value)
    end
    function globals.print(...)
      local count = select("#", ...)
      if count == 1 then
        put_printed((...), 1)
      else
        local values = { ... }
        for number = 1, count do
          put_printed(values[number], number)
        end
      end
      put("stdout", "\n")
      settle("stdout")
    end
  end

  function add_warn(globals)
    if not stock.warn then return end
    local is_on = false
    function globals.warn(...)
      local parts = { ... }
      for number = 1, select("#", ...) do
        parts[number] = text_argument(parts[number], number, "warn")
      end
      if parts[1] == nil then text_argument(nil, 1, "warn") end
      if #parts == 1 and byte(parts[1]) == 64 then
        if parts[1] == "@on" or parts[1] == "@off" then is_on = parts[1] == "@on" end
      elseif is_on then
        put("stderr", "Lua warning: " .. concat(parts) .. "\n")
        settle("stderr")
      end
    end
  end

  local function pass_stop_on(succeeded, ...)
    if ending and not succeeded then stop() end
    return succeeded, ...
  end

  -- What a wrapped coroutine gave its caller; errors get the caller's position, as 5.1 does.
  local function unwrap(succeeded, ...)
    if succeeded then return ... end
    if ending then stop() end
    local message = ...
    if type(message) ~= "string" then error(message, 0) end
    complain(message)
  end

  function add_coroutine(globals)
    local library = copy(pristine.coroutine)
    function library.resume(thread, ...)
      if type(thread) ~= "thread" then bad_argument(1, "resume", "coroutine expected") end
      return pass_stop_on(stock_resume(thread, ...))
    end
    -- Where hooks belong to coroutines, 5.1 alone cannot set that of the main one from another.
    if HAS_FUNCTION_ENVIRONMENTS and not IS_JIT then
      function library.wrap(body)
        local thread = call_as("wrap", 0, create_coroutine, body)
        return function(...) return unwrap(stock_resume(thread, ...)) end
      end
    end
    globals.coroutine = library
  end
end

---------------------------------------------------------------------------------------------------
-- The environment's libraries: loading functions, and the environments of functions
---------------------------------------------------------------------------------------------------

local add_loading, add_function_environments
do
  local function read_program(path)
    if path == nil then return read_rest(), "=stdin" end
    local bytes, problem = read_file(path)
    return bytes, bytes and "@" .. path or problem
  end

  -- Whether a mode that code passes to a loading function admits source.
  local function admits_text(mode)
    return mode == nil or find(mode, "t", 1, true) ~= nil
  end

  -- The globals of what is loaded: those that were given, if any.
  local function choose_globals(environment, ...)
    local is_given = select("#", ...) > 0
    -- Where functions have environments, only a table can be one.
    if HAS_FUNCTION_ENVIRONMENTS then is_given = type((...)) == "table" end
    if is_given then return (...) end
    return environment.thread_globals
  end

  function add_loading(environment)
    local globals = environment.globals

    local function load_code(name, chunk, chunk_name, mode, ...)
      local chunk_globals = choose_globals(environment, ...)
      if not admits_text(mode) then return nil, PRECOMPILED end
      if type(chunk) == "number" then chunk = tostring(chunk) end
      if type(chunk) == "string" then return compile(chunk, chunk_name, chunk_globals) end
      if type(chunk) ~= "function" then
        bad_argument(1, name, "function expected, got " .. type(chunk))
      end
      return finish_loading(compile_pieces(chunk, chunk_name, chunk_globals))
    end

    local function load_file(path, mode, ...)
      local chunk_globals = choose_globals(environment, ...)
      if not admits_text(mode) then return nil, PRECOMPILED end
      local bytes, name = read_program(path)
      if not bytes then return nil, name end
      return compile(code_of_file(bytes), name, chunk_globals)
    end

    function globals.load(chunk, ...)
      if not LOAD_TAKES_ENVIRONMENT and type(chunk) ~= "function" then
        bad_argument(1, "load", "function expected, got " .. type(chunk))
      end
      return load_code("load", chunk, ...)
    end
    if loadstring then
      function globals.loadstring(code, ...)
        return load_code("loadstring", text_argument(code, 1, "loadstring"), ...)
      end
    end
    function globals.loadfile(path, ...)
      return load_file(path and text_argument(path, 1, "loadfile"), ...)
    end
    function globals.dofile(path)
      local chunk, message = load_file(path and text_argument(path, 1, "dofile"))
      if not chunk then error(message, 0) end
      return chunk()
    end
  end

  -- The function that getfenv and setfenv mean by a function or a level.
  local function find_function(subject, name)
    if type(subject) == "function" then return subject end
    local level = tonumber(subject)
    if not level then bad_argument(1, name, "number expected, got " .. type(subject)) end
    if level < 0 then bad_argument(1, name, "level must be non-negative") end
    local info = getinfo(level + 2, "f")
    if not info then bad_argument(1, name, "invalid level") end
    return info.func
  end

  local is_stock_table = { [stock] = true }
  for _, library in next, stock_loaded do
    is_stock_table[library] = true
  end

  -- The environment of a function that is code of others, written in Lua. The rest has that of the
  -- process or of a stock library.
  local function find_environment(found)
    local info = found and getinfo(found, "S")
    if not info or info.what == "C" or info.source == OWN_SOURCE then return nil end
    local fenv = getfenv(found)
    return not is_stock_table[fenv] and fenv or nil
  end

  function add_function_environments(environment)
    local globals = environment.globals
    function globals.getfenv(subject)
      if subject == 0 then return environment.thread_globals end
      local found = find_function(subject == nil and 1 or subject, "getfenv")
      return find_environment(found) or environment.thread_globals
    end
    function globals.setfenv(subject, fenv)
      if type(fenv) ~= "table" then
        bad_argument(2, "setfenv", "table expected, got " .. type(fenv))
      end
      if subject == 0 then
        environment.thread_globals = fenv
        return
      end
      local found = find_function(subject, "setfenv")
      if not find_environment(found) then
        complain("'setfenv' cannot change environment of given object")
      end
      return setfenv(found, fenv)
    end
  end
end

---------------------------------------------------------------------------------------------------
-- The environment's libraries: io
---------------------------------------------------------------------------------------------------

local FILE_METHODS, add_io
do
  FILE_METHODS = getmetatable_raw(stdin).__index

  -- Makes a method that does `act` on our streams, and what the stock one does on other files.
  local function new_method(name, act)
    local stock_method = FILE_METHODS[name]
    return function(self, ...)
      local stream = stream_of[self]
      if stream then return act(self, stream, ...) end
      return call_as(name, 0, stock_method, self, ...)
    end
  end

  local function write_stream(self, stream, ...)
    if stream == "stdin" then return nil, "Bad file descriptor", 9 end
    write_values(stream, ...)
    return LIKE_5_1 or self
  end

  local function read_stream(_, stream, ...)
    if stream ~= "stdin" then return nil, "Bad file descriptor", 9 end
    return read_input(...)
  end

  local function lines_of_stream(self, stream, ...)
    local count, formats = select("#", ...), { ... }
    return function()
      return read_stream(self, stream, unpack(formats, 1, count))
    end
  end

  local function flush_stream(_, stream)
    if stream ~= "stdin" and running_id then flush_output() end
    return true
  end

  local function buffer_stream(_, stream, mode)
    if mode ~= "no" and mode ~= "line" and mode ~= "full" then
      bad_argument(1, "setvbuf", "invalid option '" .. tostring(mode) .. "'")
    end
    unbuffered[stream] = mode ~= "full"
    return true
  end

  local function close_stream()
    return nil, "cannot close standard file"
  end

  local function seek_stream()
    return nil, "Illegal seek", 29
  end

  local function new_stream_class()
    local methods = {
      close = new_method("close", close_stream),
      flush = new_method("flush", flush_stream),
      lines = new_method("lines", lines_of_stream),
      read = new_method("read", read_stream),
      seek = new_method("seek", seek_stream),
      setvbuf = new_method("setvbuf", buffer_stream),
      write = new_method("write", write_stream),
    }
    local class = { __index = methods, __name = "FILE*" }
    function class.__tostring(self)
      return "file (" .. match(raw_text(self), "0x%x+") .. ")"
    end
    return class
  end

  local function is_file(value)
    return stream_of[value] ~= nil or stock_type(value) ~= nil
  end

  -- io.input and io.output: the file that is used by default, as asked for or set.
  local function new_default_file(files, name, mode, file)
    local function choose(wanted)
      if wanted == nil then return file end
      if is_file(wanted) then
        file = wanted
        return file
      end
      local opened, problem = open_file(files, text_argument(wanted, 1, name), mode)
      if not opened then complain(problem) end
      file = opened
      return file
    end
    return choose, function() return file end
  end

  local function add_default_output(library, files)
    local current
    library.output, current = new_default_file(files, "output", "w", library.stdout)
    function library.write(...)
      local file = current()
      local stream = stream_of[file]
      if stream then return write_stream(file, stream, ...) end
      return call_as("write", 1, write_to, file, ...)
    end
    function library.flush()
      local file = current()
      if stream_of[file] then return flush_stream(file, stream_of[file]) end
      return call_as("flush", 1, flush_file, file)
    end
    function library.close(file)
      if file == nil then file = current() end
      if stream_of[file] then return close_stream() end
      return call_as("close", 0, close_file, file)
    end
  end

  local function add_default_input(library, files)
    local current
    library.input, current = new_default_file(files, "input", "r", library.stdin)
    function library.read(...)
      local file = current()
      local stream = stream_of[file]
      if stream then return read_stream(file, stream, ...) end
      return call_as("read", 1, read_from, file, ...)
    end
    function library.lines(path, ...)
      local file = current()
      if path ~= nil then
        path = text_argument(path, 1, "lines")
        local opened, problem = open_file(files, path, "r")
        if not opened then complain(problem) end
        close_file(opened)
        return call_as("lines", 0, stock.io.lines, resolve(until_zero(path)), ...)
      end
      if stream_of[file] then return lines_of_stream(file, stream_of[file], ...) end
      return call_as("lines", 1, FILE_METHODS.lines, file, ...)
    end
  end

  local function add_opening(library, files)
    function library.open(path, mode)
      path, mode = text_argument(path, 1, "open"), mode and text_argument(mode, 2, "open")
      return open_file(files, path, mode)
    end
    function library.popen(command, mode)
      command = text_argument(command, 1, "popen")
      if not grants.spawn then return nil, command .. ": " .. NO_SPAWN, NOT_PERMITTED end
      local writes = mode ~= nil and sub(text_argument(mode, 2, "popen"), 1, 1) == "w"
      local away = writes and "exec >/dev/null 2>&1\n" or "exec </dev/null 2>/dev/null\n"
      flush_output()
      command = away .. in_context(command)
      local file, problem, code = call_as("popen", 0, stock_popen, command, mode)
      if file then files[file] = true end
      return file, problem, code
    end
    function library.tmpfile()
      local allowed, problem, code = permit_writing("/tmp")
      if not allowed then return nil, problem, code end
      local file
      file, problem, code = stock.io.tmpfile()
      if file then files[file] = true end
      return file, problem, code
    end
    function library.type(...)
      if stream_of[(...)] then return "file" end
      return call_as("type", 0, stock_type, ...)
    end
  end

  function add_io(environment)
    local library, class = {}, new_stream_class()
    for _, stream in next, { "stdin", "stdout", "stderr" } do
      library[stream] = setmetatable({}, class)
      stream_of[library[stream]] = stream
    end
    add_default_output(library, environment.files)
    add_default_input(library, environment.files)
    add_opening(library, environment.files)
    environment.globals.io = library
  end
end

---------------------------------------------------------------------------------------------------
-- The environment's libraries: os
---------------------------------------------------------------------------------------------------

local add_os
do
  local function exit_code_of(code)
    if code == nil or code == true then return 0 end
    if code == false then return 1 end
    local number = tonumber(code)
    if not number then bad_argument(1, "exit", "number expected, got " .. type(code)) end
    if number - number ~= 0 then bad_argument(1, "exit", "number has no integer representation") end
    return floor(number) % 256 -- all that a process's exit code can be
  end

  local function get_variable(name)
    name = text_argument(name, 1, "getenv")
    local value = variables[name]
    if value ~= nil or grants.env[name] then return value end
    return nil, "environment variable `" .. name .. "` was not granted; allow it with --allow-env "
      .. name
  end

  local function execute(command)
    if command == nil then
      if LIKE_5_1 then return grants.spawn and 1 or 0 end
      return grants.spawn
    end
    command = text_argument(command, 1, "execute")
    if not grants.spawn then complain(NO_SPAWN) end
    local status = run_program(command)
    if LIKE_5_1 then return status * 256 end
    return status == 0 or nil, "exit", status
  end

  -- Passes on what a stock function said about `absolute`, speaking of the path as it was given.
  local function about_given_path(absolute, path, succeeded, problem, code)
    if succeeded then return succeeded end
    return nil, with_given_path(problem, absolute, path), code
  end

  local function add_changing_files(library)
    function library.remove(path)
      path = until_zero(text_argument(path, 1, "remove"))
      local absolute, problem, code = permit_writing(path)
      if not absolute then return nil, problem, code end
      return about_given_path(absolute, path, stock.os.remove(absolute))
    end
    function library.rename(from, to)
      from = until_zero(text_argument(from, 1, "rename"))
      to = until_zero(text_argument(to, 2, "rename"))
      local source, problem, code = permit_writing(from)
      if not source then return nil, problem, code end
      local target
      target, problem, code = permit_writing(to)
      if not target then return nil, problem, code end
      return about_given_path(source, from, stock.os.rename(source, target))
    end
    function library.tmpname()
      local allowed, problem = permit_writing("/tmp")
      if not allowed then complain(problem) end
      return call_as("tmpname", 0, stock.os.tmpname)
    end
  end

  function add_os(environment)
    local library = pick(stock.os, OS_FUNCTIONS)
    library.getenv, library.execute = get_variable, execute
    function library.exit(code)
      code = exit_code_of(code)
      if running_id and not ending then exit_code = code end
      stop("exit")
    end
    function library.setlocale(locale, ...)
      environment.has_set_locale = environment.has_set_locale or locale ~= nil
      return call_as("setlocale", 0, setlocale, locale, ...)
    end
    add_changing_files(library)
    environment.globals.os = library
  end
end

---------------------------------------------------------------------------------------------------
-- The environment's libraries: debug and jit
---------------------------------------------------------------------------------------------------

local add_debug, add_jit
do
  -- Makes a function of ours look like the stock one that it stands for.
  local function disguise(info)
    if info.what then
      info.what, info.source, info.short_src = "C", "=[C]", "[C]"
      info.linedefined, info.lastlinedefined = -1, -1
    end
    if info.currentline then info.currentline = -1 end
    info.activelines = nil
    return info
  end

  -- What getinfo found about a stack level, where functions of ours and the stock ones that they
  -- call are not for others to call.
  local function withhold(info, origin)
    if origin.what == "C" or origin.source == OWN_SOURCE then info.func = nil end
    return origin.source == OWN_SOURCE and disguise(info) or info
  end

  local function get_level_info(level, what)
    level = level + 2
    if in_main_coroutine() and not getinfo(level + frames_below, "l") then return nil end
    local info = getinfo(level, what)
    return info and withhold(info, getinfo(level, "S"))
  end

  local function get_info(...)
    local thread, subject, what = nil, ...
    if type(subject) == "thread" then thread, subject, what = ... end
    what = what or "flnSu"
    local options_at = thread and 3 or 2
    local is_valid = pcall(getinfo, complain, what)
    if not is_valid then bad_argument(options_at, "getinfo", "invalid option") end
    if type(subject) == "function" then
      local info = getinfo(subject, what)
      return getinfo(subject, "S").source == OWN_SOURCE and disguise(info) or info
    end
    local level = tonumber(subject)
    if not level then bad_argument(options_at - 1, "getinfo", "function or level expected") end
    if level < 0 then return nil end
    local info
    if not thread or thread == running_coroutine() then
      info = get_level_info(level, what)
    else
      info = getinfo(thread, level, what)
      info = info and withhold(info, getinfo(thread, level, "S"))
    end
    return info
  end

  local function get_traceback(...)
    local thread, message, level = nil, ...
    local count = select("#", ...)
    if type(message) == "thread" then
      thread, message, level = ...
      count = count - 1
    end
    local is_text = type(message) == "string" or type(message) == "number"
    -- In 5.1, even a nil that is given is a message to leave alone.
    local is_absent = message == nil and (count == 0 or not LIKE_5_1)
    if not is_text and not is_absent then return message end
    local text
    if thread and thread ~= running_coroutine() then
      text = stock_traceback(thread, "", level or 0)
    else
      text = stock_traceback("", (level or 1) + 1)
    end
    local hides = (thread or running_coroutine()) == main_coroutine
    local lines = clean_traceback(text, hides and frames_below + 1 or 0)
    return message == nil and lines or message .. "\n" .. lines
  end

  function add_debug(globals)
    globals.debug = {
      getinfo = get_info,
      traceback = get_traceback,
    }
  end

  local jit_modules = {}
  for _, name in next, IS_JIT and { "table.new", "table.clear" } or {} do
    local found, result = pcall(require, name)
    jit_modules[name] = found and result or nil
  end

  function add_jit(globals, preload)
    if not IS_JIT then return end
    globals.jit = pick(stock.jit, JIT_FIELDS)
    for name, result in next, jit_modules do
      preload[name] = function() return result end
    end
    function preload.ffi()
      error("module 'ffi' is not available: code that has it reaches all of the process", 0)
    end
  end
end

---------------------------------------------------------------------------------------------------
-- The environment's libraries: package
---------------------------------------------------------------------------------------------------

local add_package
do
  local SEARCHERS_NAME = package.searchers and "searchers" or "loaders"
  -- What a searcher says on failure starts a line of its own, from 5.4 on by itself.
  local LINE_START = LOAD_STARTS_WITH_PREFIX and "" or "\n\t"
  local DETECTS_LOOPS = _VERSION == "Lua 5.1"

  local function is_there(path)
    local file = stock_open(path, "rb")
    return file ~= nil and close_file(file)
  end

  local function no_read_grant(path)
    return "no read grant for '" .. path .. "' (allow it with --allow-read " .. path .. ")"
  end

  -- The first file of a search path that is there and may be read, or nil and what was tried.
  local function search_path(name, path, separator, replacement)
    if (separator or ".") ~= "" then
      local pattern = gsub(separator or ".", "%p", "%%%0")
      name = gsub(name, pattern, (gsub(replacement or "/", "%%", "%%%%")))
    end
    name = gsub(name, "%%", "%%%%")
    local tried = {}
    for template in gmatch(path, "[^;]+") do
      local candidate = until_zero((gsub(template, "%?", name)))
      local absolute = resolve(candidate)
      if absolute and is_readable(absolute) then
        if is_there(absolute) then return candidate end
        tried[#tried + 1] = "no file '" .. candidate .. "'"
      else
        tried[#tried + 1] = no_read_grant(candidate)
      end
    end
    return nil, #tried > 0 and LINE_START .. concat(tried, "\n\t") or ""
  end

  local function path_field(library, field)
    local path = library[field]
    if type(path) ~= "string" then complain("'package." .. field .. "' must be a string") end
    return path
  end

  local function load_library(path, name)
    local absolute = resolve(until_zero(path))
    if not absolute or not is_readable(absolute) then
      return nil, no_read_grant(path), "open"
    end
    return stock.package.loadlib(absolute, name)
  end

  local function search_c_library(library, name, root)
    local path, tried = search_path(root, path_field(library, "cpath"))
    if not path then return tried end
    local opener = "luaopen_" .. gsub(gsub(name, "^[^-]*%-", ""), "%.", "_")
    local loader, problem, what = load_library(path, opener)
    if loader then return loader, path end
    if root ~= name and what == "init" then
      return LINE_START .. "no module '" .. name .. "' in file '" .. path .. "'"
    end
    error("error loading module '" .. name .. "' from file '" .. path .. "':\n\t" .. problem, 0)
  end

  local function new_searchers(globals, library)
    local function search_preload(name)
      local loader = rawget(library.preload, name)
      if loader ~= nil then return loader, ":preload:" end
      return LINE_START .. "no field package.preload['" .. name .. "']"
    end
    local function search_lua(name)
      local path, tried = search_path(name, path_field(library, "path"))
      if not path then return tried end
      local chunk, problem = globals.loadfile(path)
      if chunk then return chunk, path end
      error("error loading module '" .. name .. "' from file '" .. path .. "':\n\t" .. problem, 0)
    end
    local function search_c(name)
      return search_c_library(library, name, name)
    end
    local function search_c_root(name)
      local root = match(name, "^([^.]*)%.")
      return root and search_c_library(library, name, root)
    end
    return { search_preload, search_lua, search_c, search_c_root }
  end

  local function find_loader(library, name)
    local searchers = library[SEARCHERS_NAME]
    if type(searchers) ~= "table" then
      complain("'package." .. SEARCHERS_NAME .. "' must be a table")
    end
    local tried = {}
    for index = 1, huge do
      local searcher = rawget(searchers, index)
      if searcher == nil then break end
      local loader, extra = searcher(name)
      if type(loader) == "function" then return loader, extra end
      if type(loader) == "string" and loader ~= "" then
        tried[#tried + 1] = (LOAD_STARTS_WITH_PREFIX and "\n\t" or "") .. loader
      end
    end
    complain("module '" .. name .. "' not found:" .. concat(tried))
  end

  -- Calls what loads a module. A library written in C may enter itself where the process has them.
  local function call_loader(loader, name, extra)
    local before = stock_loaded[name]
    local result
    if DETECTS_LOOPS then result = loader(name) else result = loader(name, extra) end
    if result == nil and stock_loaded[name] ~= before then result = stock_loaded[name] end
    return result
  end

  local function new_require(library, loaded)
    local loading = {}
    return function(name)
      name = text_argument(name, 1, "require")
      if loading[name] then complain("loop or previous error loading module '" .. name .. "'") end
      if loaded[name] then return loaded[name] end
      local loader, extra = find_loader(library, name)
      loading[name] = DETECTS_LOOPS or nil
      local result = call_loader(loader, name, extra)
      loading[name] = nil
      if result ~= nil then loaded[name] = result end
      if loaded[name] == nil then loaded[name] = true end
      if LOAD_STARTS_WITH_PREFIX then return loaded[name], extra end
      return loaded[name]
    end
  end

  function add_package(environment)
    local globals, loaded = environment.globals, {}
    local library = {
      config = stock.package.config,
      path = "./?.lua;./?/init.lua",
      cpath = "",
      loaded = loaded,
      preload = {},
    }
    local searchers = new_searchers(globals, library)
    library.searchers = stock.package.searchers and searchers
    library.loaders = stock.package.loaders and searchers
    function library.loadlib(path, name)
      return load_library(text_argument(path, 1, "loadlib"), text_argument(name, 2, "loadlib"))
    end
    if stock.package.searchpath then
      function library.searchpath(name, path, ...)
        name = text_argument(name, 1, "searchpath")
        return search_path(name, text_argument(path, 2, "searchpath"), ...)
      end
    end
    globals.package = library
    globals.require = new_require(library, loaded)
    add_jit(globals, library.preload)
  end
end

---------------------------------------------------------------------------------------------------
-- The environment's libraries: module, where the interpreter has it
---------------------------------------------------------------------------------------------------

local add_module
do
  local set_upvalue = debug.setupvalue

  -- The table at a dotted name, made where it is missing; nil where something else stands there.
  local function find_table(root, name)
    for part in gmatch(name, "[^.]+") do
      local child = rawget(root, part)
      if child == nil then
        child = {}
        root[part] = child
      end
      if type(child) ~= "table" then return nil end
      root = child
    end
    return root
  end

  local function begin_module(globals, loaded, name)
    local module = loaded[name]
    if type(module) ~= "table" then
      module = find_table(globals, name)
      if not module then complain("name conflict for module '" .. name .. "'") end
      loaded[name] = module
    end
    if module._NAME == nil then
      module._M, module._NAME, module._PACKAGE = module, name, match(name, "^(.*%.)") or ""
    end
    return module
  end

  function add_module(globals, loaded)
    if not stock.module then return end
    function globals.module(name, ...)
      local module = begin_module(globals, loaded, text_argument(name, 1, "module"))
      local caller = getinfo(2, "fS")
      if not caller.func or caller.what == "C" or caller.source == OWN_SOURCE then
        complain("'module' not called from a Lua function")
      end
      if setfenv then
        setfenv(caller.func, module)
      else
        set_upvalue(caller.func, 1, module)
      end
      for _, option in next, { ... } do
        if type(option) == "function" then option(module) end
      end
    end
    function globals.package.seeall(module)
      if type(module) ~= "table" then
        bad_argument(1, "seeall", "table expected, got " .. type(module))
      end
      local metatable = getmetatable_raw(module) or {}
      setmetatable(module, metatable)
      metatable.__index = globals
    end
  end
end

---------------------------------------------------------------------------------------------------
-- Environments
---------------------------------------------------------------------------------------------------

local environment_for, enter, leave_locale, leave, stand_by
do
  -- Tables that belong to types, and so to all environments: the metatables of strings and files,
  -- and the methods of files. What an environment makes of them is put in place while it runs.
  local shared_tables = { getmetatable_raw(""), getmetatable_raw(stdin) }
  if FILE_METHODS ~= shared_tables[2] then shared_tables[3] = FILE_METHODS end

  local function save_shared_tables()
    local saved = {}
    for index, shared in next, shared_tables do
      saved[index] = { entries = copy(shared), metatable = getmetatable_raw(shared) }
    end
    return saved
  end

  local function restore_shared_tables(saved)
    for index, shared in next, shared_tables do
      setmetatable_raw(shared, nil)
      for key in next, shared do
        shared[key] = nil
      end
      for key, value in next, saved[index].entries do
        shared[key] = value
      end
      setmetatable_raw(shared, saved[index].metatable)
    end
  end

  local untouched = save_shared_tables()

  -- A state of its own: globals, libraries, open files.
  local function new_environment()
    local globals = pick(stock, BASE_FUNCTIONS)
    local environment = { globals = globals, thread_globals = globals }
    environment.files = setmetatable({}, { __mode = "k" }) -- those that its code opened
    globals._G = globals
    for name, library in next, pristine do
      globals[name] = copy(library)
    end
    add_print(globals)
    add_warn(globals)
    add_coroutine(globals)
    add_loading(environment)
    if HAS_FUNCTION_ENVIRONMENTS then add_function_environments(environment) end
    add_io(environment)
    add_os(environment)
    add_debug(globals)
    add_package(environment)
    local loaded = globals.package.loaded
    for name, library in next, globals do
      if type(library) == "table" then loaded[name] = library end
    end
    add_module(globals, loaded)
    local strings = copy(untouched[1].entries)
    strings.__index = globals.string
    environment.shared = { { entries = strings }, untouched[2], untouched[3] }
    return environment
  end

  local nobody = new_environment() -- in place while no code runs
  local lasting -- what evaluations have in common, once there is one that is not fresh
  local active

  local function activate(environment)
    if active == environment then return end
    if active == lasting and active then active.shared = save_shared_tables() end
    restore_shared_tables(environment.shared)
    stock_loaded._G = environment.globals -- where tracebacks look up the names of functions
    active = environment
  end

  function stand_by()
    activate(nobody)
  end

  function environment_for(is_fresh)
    if is_fresh then return new_environment() end
    lasting = lasting or new_environment()
    return lasting
  end

  function enter(environment)
    activate(environment)
    environment.thread_globals = environment.globals
    if environment.locale then setlocale(environment.locale) end
    environment.has_set_locale = environment.locale ~= nil
  end

  -- What follows the code sorts by bytes.
  function leave_locale(environment)
    if not environment.has_set_locale then return end
    environment.locale = setlocale(nil)
    setlocale("C")
    environment.has_set_locale = false
  end

  function leave(environment)
    settle_files(environment.files, environment ~= lasting)
    leave_locale(environment)
    if environment ~= lasting then stand_by() end
  end
end

---------------------------------------------------------------------------------------------------
-- Evaluating
---------------------------------------------------------------------------------------------------

local make_room, evaluate
local reserve -- memory to report with that there is none
local full_kib = huge -- what was in use when it was needed last
local has_stopped_compiler = false
do
  local OUT_OF_MEMORY = "not enough memory"
  local WITHOUT_MEMORY = { OUT_OF_MEMORY }
  local NO_VALUES = "\144"
  local NO_ITEMS = {}

  local environment -- of the evaluation that goes on
  local failure_traceback

  local function on_error(value)
    if not ending then failure_traceback = stock_traceback("", 2) end
    return value
  end

  local function pack(...)
    return { ... }
  end

  local function collect(succeeded, ...)
    if ending then sethook() end
    local packed, values = pcall(pack, ...)
    if not packed then return false, 1, WITHOUT_MEMORY end
    return succeeded, select("#", ...), values
  end

  local function run_protected(body)
    return collect(xpcall(body, on_error))
  end

  -- How many levels are below one that run_protected has started, and below the xpcall that did it.
  -- There should be few: of a deep stack, tracebacks show only the lowest ten.
  local function count_frames_below()
    local level = 2
    while getinfo(level, "l") do
      level = level + 1
    end
    frames_below = level - 3
  end

  local function ends_too_early(message)
    return message ~= nil and find(message, "<eof>'?$") ~= nil
  end

  -- Returns the chunk; or nil and a message; or nil alone where more lines could complete it.
  local function compile_request(form, name, code, globals)
    if form == "chunk" then return compile(code_of_file(code), name, globals) end
    if byte(code) == 27 then return compile(code, name, globals) end
    local chunk, message = compile("return " .. code, name, globals)
    if chunk then return chunk end
    local is_incomplete = ends_too_early(message)
    chunk, message = compile(code, name, globals)
    if not chunk and (is_incomplete or ends_too_early(message)) then return nil end
    return chunk, message
  end

  -- Files and code with arguments get the table `arg`; for a line of input the last one stays.
  local function set_arguments(globals, name, arguments)
    if #arguments == 0 and byte(name) ~= 64 then return end
    local list = { [0] = gsub(name, "^[@=]", "") }
    for index = 1, #arguments do
      list[index] = arguments[index]
    end
    rawset(globals, "arg", list)
  end

  -- Sets what holds for one evaluation.
  local function begin(fields)
    ending, exit_code, failure_traceback, environment = nil, nil, nil, nil
    variables = fields[7] or variables
    working_directory = fields[8] or working_directory
    room = fields[11] or huge
    cut.stdout, cut.stderr = false, false
    unbuffered.stdout, unbuffered.stderr = false, false
    forget_input()
    running_id = fields[1]
  end

  -- Whether an error says that memory ran out, as Lua itself and 5.3's library of strings put it.
  local function is_shortage(value)
    if type(value) ~= "string" then return false end
    return value == OUT_OF_MEMORY or find(value, "not enough memory for buffer allocation$") ~= nil
  end

  local function status_of_ending()
    return ending == "exit" and "finished" or ending, NO_VALUES, NIL
  end

  -- How code ended that was run: status, values and error as the protocol has them.
  local function describe_ending(succeeded, count, values)
    if ending then return status_of_ending() end
    local limit = room < LARGEST_REQUEST and room or LARGEST_REQUEST
    if succeeded then
      local fits, bytes = pcall(encode_values, values, count, limit)
      if fits then return "finished", bytes, NIL end
      if bytes == TOO_LARGE then return "output", NO_VALUES, NIL end
      values = { bytes }
    end
    local failure = encode_error(values[1], failure_traceback, limit)
    if ending then return status_of_ending() end
    return is_shortage(values[1]) and "memory" or "error", NO_VALUES, failure
  end

  -- Between evaluations nothing is collected, since finalizers are code of evaluations.
  local function pause_collector()
    if not HAS_FINALIZERS then return end
    environment.has_stopped_collector = not collectgarbage("isrunning")
    collectgarbage("stop")
  end

  local function resume_collector()
    if HAS_FINALIZERS and not environment.has_stopped_collector then collectgarbage("restart") end
  end

  -- Returns a function to run; otherwise, what compile_request returned.
  local function prepare(fields)
    environment = environment_for(fields[3])
    enter(environment)
    local name, arguments = fields[4], fields[6]
    local chunk, message = compile_request(fields[2], name, fields[5], environment.globals)
    fields[5] = nil
    resume_collector()
    if not chunk then return nil, message end
    -- LuaJIT decides what to compile by counters that code shares by its address. What this worker
    -- has counted must not decide for the code that it runs: switching the compiler resets them.
    if IS_JIT and stock.jit.status() then
      stock.jit.off()
      stock.jit.on()
    end
    set_arguments(environment.globals, name, arguments)
    if #arguments == 0 then return chunk end
    return function() return chunk(unpack(arguments)) end
  end

  -- What follows the code, or the failure to compile it: status, values and error.
  local function finish(succeeded, count, values)
    leave_locale(environment)
    if not succeeded and is_shortage(values[1]) then make_room() end
    local status, value_bytes, failure = describe_ending(succeeded, count, values)
    if ending then sethook() end
    leave(environment)
    pause_collector()
    return status, value_bytes, failure
  end

  local function finish_unrun(message)
    if message then return finish(false, 1, { message }) end
    leave(environment)
    pause_collector()
    return "incomplete", NO_VALUES, NIL
  end

  function make_room()
    full_kib = collectgarbage("count")
    reserve = nil
    -- LuaJIT aborts the process where it cannot have memory for compiled code.
    if IS_JIT and stock.jit.status() then
      stock.jit.off()
      has_stopped_compiler = true
    end
    pcall(collectgarbage)
    -- What ended calls left on the stack keeps alive what they used.
    pcall(unpack, NO_ITEMS, 1, 250)
    pcall(collectgarbage)
  end

  -- What is left to say when this worker itself failed, as it does for want of memory.
  local function describe_breakdown(problem)
    make_room()
    if HAS_FINALIZERS then collectgarbage("stop") end
    if ending then return status_of_ending() end
    local status = is_shortage(problem) and "memory" or "error"
    return status, NO_VALUES, "\147" .. encode_text(error_message(problem)) .. NIL .. NIL
  end

  local function send_end(status, values, failure, started)
    local processor_time = floor((clock() - started) * 1000000)
    local fields = encode_integer(running_id) .. encode_text(status) .. values .. failure
      .. (ending == "exit" and encode_integer(exit_code) or NIL)
      .. encode_integer(processor_time) .. NIL
      .. "\146" .. (cut.stdout and TRUE or FALSE) .. (cut.stderr and TRUE or FALSE) .. FALSE
    running_id = nil
    drain()
    send("\129\163end\153", fields)
    flush_connection()
  end

  function evaluate(fields)
    local started = clock()
    begin(fields)
    if not frames_below then run_protected(count_frames_below) end
    local works, body, problem = pcall(prepare, fields)
    local status, values, failure
    if works and body then
      works, status, values, failure = pcall(finish, run_protected(body))
    elseif works then
      works, status, values, failure = pcall(finish_unrun, problem)
    else
      status = body
    end
    if ending then sethook() end
    if not works then status, values, failure = describe_breakdown(status) end
    send_end(status, values, failure, started)
  end
end

---------------------------------------------------------------------------------------------------
-- Serving
---------------------------------------------------------------------------------------------------

local RESERVE_SIZE = 65536
local SMALL_GROWTH_KIB = 4096

local live_kib = 0 -- what was in use after the last collection
local crowded_kib = huge -- where memory is about to run short

-- Collects what evaluations left when it has become much, or memory is short.
local function tidy()
  local kib = collectgarbage("count")
  if kib > 2 * live_kib + SMALL_GROWTH_KIB or kib > crowded_kib and kib > 1.1 * live_kib then
    collectgarbage()
    kib = collectgarbage("count")
    live_kib = kib
  end
  if not reserve and (kib < full_kib / 2 or kib < SMALL_GROWTH_KIB) then
    reserve = rep("\0", RESERVE_SIZE)
    if has_stopped_compiler then stock.jit.on() end
    has_stopped_compiler = false
  end
end

local function is_evaluation(fields)
  if type(fields) ~= "table" then return false end
  local id, form, _, name, code, arguments, environment, directory = unpack(fields, 1, 8)
  return type(id) == "number" and type(form) == "string" and type(name) == "string"
    and type(code) == "string" and type(arguments) == "table"
    and type(environment or {}) == "table" and type(directory or "") == "string"
    and type(fields[11] or 0) == "number"
end

local function is_configuration(fields)
  if type(fields) ~= "table" or type(fields[2]) ~= "table" then return false end
  local read, write, _, env = unpack(fields[2], 1, 4)
  return type(fields[1] or 0) == "number"
    and type(read or {}) == "table" and type(write or {}) == "table" and type(env or {}) == "table"
end

local function seed_random()
  if stock.warn then return end -- from 5.4 on it is seeded from the start
  local address = tonumber(match(tostring({}), "0x(%x+)") or "0", 16) or 0
  math.randomseed(floor(time() + clock() * 1000000 + address / 16) % 2147483648)
end

local function say_hello()
  send("\129\165hello", "\147" .. encode_integer(PROTOCOL_VERSION)
    .. encode_text(interpreter_name()) .. encode_text(platform_name()))
  flush_connection()
end

stdout:setvbuf("full", 65536)
seed_random()
stand_by()
if HAS_FINALIZERS then collectgarbage("stop") end
say_hello()
while true do
  local received, name, fields = pcall(receive)
  if not received then
    fatal("the worker failed: " .. error_message(name))
  elseif name == "evaluate" and is_evaluation(fields) then
    evaluate(fields)
    pcall(tidy)
  elseif name == "configure" and is_configuration(fields) then
    configure(fields[2])
    crowded_kib = (fields[1] or huge) / 1024 * 0.75
  elseif name == "shutdown" then
    exit_process(0)
  elseif name ~= "cancel" and name ~= "stdin" then -- these two may come too late
    fatal("`" .. name .. "` is no request that can be answered now")
  end
end

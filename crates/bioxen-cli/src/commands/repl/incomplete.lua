-- Whether more lines could make `input` whole: it fails to compile, and at its very end.
local compile = loadstring or load
if compile("return " .. input) then return false end
local _, problem = compile(input)
return problem ~= nil and string.find(problem, "<eof>'?$") ~= nil

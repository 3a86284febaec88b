-- Output of busted for `make test`: a line a spec file, failures in full, and counts and pendings in a file for tools/test.lua.
-- Arguments (-Xoutput): the name of that file.
local pretty = require "pl.pretty"
local busted = require "busted"

return function(options)
  local handler = require "busted.outputHandlers.base"()
  local path = options.arguments and options.arguments[1]
  local current, slow = nil, {}

  local function text(message)
    return type(message) == "string" and message or message ~= nil and pretty.write(message) or "no message"
  end

  local function describe(word, entry)
    local trace = entry.element.trace or entry.trace
    local where = trace and trace.short_src and ("%s:%s: "):format(trace.short_src, trace.currentline) or ""
    io.write(("  %s %s%s\n    %s\n"):format(word, where, entry.name, (text(entry.message):gsub("\n", "\n    "))))
    if word == "error" and entry.trace and entry.trace.traceback then
      io.write("    ", (entry.trace.traceback:gsub("\n", "\n    ")), "\n")
    end
  end

  -- A line for the file that just ended, then what went wrong in it.
  local function close_file()
    if not current then return end
    local passed = handler.successesCount - current.passed
    local failed = handler.failuresCount + handler.errorsCount - current.failed
    local pending = handler.pendingsCount - current.pending
    io.write(("%-36s %4d passed%s%s  %.1f s\n"):format(current.name, passed, failed > 0 and (", %d failed"):format(failed) or "",
      pending > 0 and (", %d pending"):format(pending) or "", require("system").monotime() - current.started))
    for i = current.failures + 1, #handler.failures do describe("failure", handler.failures[i]) end
    for i = current.errors + 1, #handler.errors do describe("error", handler.errors[i]) end
    io.flush()
    current = nil
  end

  local function file_start(file)
    close_file()
    current = {
      name = file.name, started = require("system").monotime(), passed = handler.successesCount,
      failed = handler.failuresCount + handler.errorsCount, pending = handler.pendingsCount,
      failures = #handler.failures, errors = #handler.errors,
    }
    return nil, true
  end

  local function test_end(element)
    if element.duration and element.duration > 5 then
      slow[#slow + 1] = ("%.1f s  %s"):format(element.duration, handler.getFullName(element))
    end
    return nil, true
  end

  local function suite_end()
    close_file()
    if #slow > 0 then io.write("over 5 s: ", table.concat(slow, "; "), "\n") end
    if path then
      local out = assert(io.open(path, "w"))
      for _, entry in ipairs(handler.pendings) do
        local reason = entry.message and text(entry.message):gsub("%s+", " "):gsub("^[^%s:]+:%d+: ", "") or "no reason given"
        out:write(("pending\t%s\t%s\n"):format((entry.name:gsub("%s+", " ")), reason))
      end
      out:write(("counts\t%d\t%d\n"):format(handler.successesCount, handler.failuresCount + handler.errorsCount))
      out:close()
    end
    return nil, true
  end

  busted.subscribe({"file", "start"}, file_start)
  busted.subscribe({"test", "end"}, test_end)
  busted.subscribe({"suite", "end"}, suite_end)
  return handler
end

-- Runs a shell command for a spec: what it printed on both streams, and its exit code.
return function(command)
  local pipe = assert(io.popen("exec 2>&1; (" .. command .. "); echo \"=$?\""))
  local text, code = pipe:read("*a"):match("^(.*)=(%d+)\n$")
  pipe:close()
  return text, tonumber(code)
end

-- Runs a shell command beside a file system of a given size mounted at a folder, in a name space of its own, gone afterwards.
local files = require "libration.files"
local shell = require "shell"

-- In a chroot the root is no mount point, so its propagation cannot be changed: the last way leaves it and unmounts by hand.
local WAYS = {"unshare -m", "unshare -rm", "unshare -m --propagation unchanged"}

---@param folder string where it is mounted
---@param size string of the file system, as in "40k"
---@param command string
---@return string|nil text on both streams; nil where this user may not mount
return function(folder, size, command)
  local quoted = files.quote(folder)
  local inner = ("mount -t tmpfs -o size=%s none %s || exit 77; (%s); cd /; umount -l %s"):format(size, quoted, command, quoted)
  for _, way in ipairs(WAYS) do
    local text, code = shell(("%s sh -c %s"):format(way, files.quote(inner)))
    if code == 0 then return text end
  end
end

-- Specs of the audit: copies across the parts of a split, labels that contradict "normal only", shared persons.
local files = require "libration.files"
local data = require "libration.data"

-- A data set of n sequences, their content by `text`, with labels.csv where given.
local function audited(n, want, text, labels)
  local folder = files.temporary_folder()
  for i = 1, n do
    files.mkdirs(("%s/%02d/rgb"):format(folder, i))
    for frame = 0, 19 do
      local file = assert(io.open(("%s/%02d/rgb/syn_%05d.png"):format(folder, i, frame), "wb"))
      file:write(text and text(i, frame) or ("%d %d"):format(i, frame))
      file:close()
    end
  end
  if labels then files.write(folder .. "/labels.csv", labels) end
  local set = assert(data.dataset.open(folder))
  local split = assert(data.splits.resolve(set, want))
  local report, reason = data.audit.run(split)
  files.remove(folder)
  return report, reason
end

local MINI_RGBD = "sequence,label\n01,0\n02,0\n03,0\n04,1\n05,0\n06,0\n07,0\n08,0\n09,1\n10,1\n11,0\n12,1\n"

describe("audit", function()
  it("passes a clean split and lists its checksums", function()
    local report = assert(audited(3, { train = "1", validate = "2", test = "3" }))
    assert.same({}, report.warnings)
    assert.equal("train: 1 sequence (01)", report.lines[1])
    assert.equal(64, #report.content.test[1].sha256)
  end)

  it("refuses a copy under another id", function()
    local report, reason = audited(3, { train = "1", validate = "2", test = "3" }, function(i, f) return (i == 3 and 1 or i) .. " " .. f end)
    assert.is_nil(report)
    assert.equal("sequences 01 (train) and 03 (test) have the same content; the parts may not overlap", reason)
  end)

  it("refuses shared pictures beyond 5 % and mentions fewer", function()
    local function some(count)
      return function(i, f) return f < count and tostring(f) or i .. " " .. f end
    end
    local report, reason = audited(2, { train = "1", validate = "2" }, some(2))
    assert.is_nil(report)
    assert.matches("share 2 of 20 pictures", reason, 1, true)
    report = assert(audited(2, { train = "1", validate = "2" }, some(1)))
    assert.matches("share 1 identical picture", report.warnings[1], 1, true)
  end)

  it("a copy inside one part is a warning", function()
    local report = assert(audited(3, { train = "1,2", validate = "3" }, function(i, f) return math.max(i, 2) .. " " .. f end))
    assert.matches("sequences 01 (train) and 02 (train) have the same content", report.warnings[1], 1, true)
  end)

  it("warns about the split 1-8 / 9,10 / 11,12 on MINI-RGBD's labels and names the legal one", function()
    local report = assert(audited(12, { train = "1-8", validate = "9,10", test = "11,12" }, nil, MINI_RGBD))
    local text = report.warnings[1]
    assert.matches("training holds 04, labelled abnormal", text, 1, true)
    assert.matches("validation holds 09, 10, labelled abnormal, so the threshold is calibrated on abnormal movement", text, 1, true)
    assert.matches("--train 01,02,03,05,06 --validate 07,08 --test 11,04,09,10,12", text, 1, true)
    local legal = assert(audited(12, { train = "01,02,03,05,06", validate = "07,08", test = "11,04,09,10,12" }, nil, MINI_RGBD))
    assert.equal(1, #legal.warnings)
    assert.matches("5 labelled test sequences are too few for a rate", legal.warnings[1], 1, true)
  end)

  it("refuses one person in two parts", function()
    local report, reason = audited(2, { train = "1", validate = "2" }, nil, "sequence,label,subject\n01,0,anna\n02,0,anna\n")
    assert.is_nil(report)
    assert.matches("subject anna is in both 01 (train) and 02 (validate)", reason, 1, true)
  end)
end)

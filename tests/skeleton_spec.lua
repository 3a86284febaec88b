-- Specs of the skeletons: their tables are whole, mirrored and drawn right, and joints keep their names through a conversion.
local lr = require "libration"
local skeletons = require "libration.pose.skeletons"

local sizes = { blazepose33 = 33, coco17 = 17, openpose18 = 18, openpose25 = 25, minirgbd25 = 25 }

-- [T,J,C] whose x is 100 t + j, y its negative, and whose later columns are sure.
local function numbered(T, J, channels)
  local t = lr.zeros({ T, J, channels })
  local p = t:ptr()
  for i = 0, T * J - 1 do
    local f, j = math.floor(i / J), i % J + 1
    p[i * channels], p[i * channels + 1] = 100 * f + j, -(100 * f + j)
    for c = 2, channels - 1 do p[i * channels + c] = .9 end
  end
  return t
end

describe("skeleton", function()
  it("has the joints its data sets have, each in one limb, mirrored twice onto itself", function()
    assert.same({ "blazepose33", "coco17", "openpose18", "openpose25", "minirgbd25" }, skeletons.names())
    for name, size in pairs(sizes) do
      local s = skeletons.get(name)
      assert.equal(size, #s.joints)
      local seen = {}
      for _, limb in ipairs(skeletons.limbs) do
        for _, j in ipairs(s.limbs[limb]) do
          assert.is_nil(seen[j], name .. " " .. s.joints[j])
          seen[j] = limb
        end
      end
      for j, joint in ipairs(s.joints) do
        assert.is_truthy(seen[j], name .. " " .. joint)
        assert.equal(j, s.index[joint])
        assert.equal(j, s.mirror[s.mirror[j]])
        assert.equal(joint:find("left", 1, true) or joint:find("right", 1, true), s.mirror[j] ~= j and (joint:find("left", 1, true) or joint:find("right", 1, true)) or nil)
      end
      for _, edge in ipairs(s.edges) do assert.is_true(edge[1] ~= edge[2] and edge[1] <= size and edge[2] <= size) end
      for _, joint in ipairs { "left_shoulder", "right_shoulder", "left_hip", "right_hip" } do assert.equal(joint, s.joints[s.torso[joint]]) end
    end
  end)

  it("is one piece or hangs on what the data leave apart", function()
    for name in pairs(sizes) do
      local s, group = skeletons.get(name), {}
      for j = 1, #s.joints do group[j] = j end
      local function root(j) return group[j] == j and j or root(group[j]) end
      for _, edge in ipairs(s.edges) do group[root(edge[1])] = root(edge[2]) end
      local pieces = 0
      for j = 1, #s.joints do if root(j) == j then pieces = pieces + 1 end end
      assert.equal(name == "blazepose33" and 3 or 1, pieces, name) -- BlazePose's face and mouth are not joined to its trunk
    end
  end)

  it("puts joints where the documented orders have them", function()
    assert.equal("left_wrist", skeletons.blazepose33.joints[16])
    assert.equal("right_foot_index", skeletons.blazepose33.joints[33])
    assert.equal("neck", skeletons.openpose18.joints[2])
    assert.equal("mid_hip", skeletons.openpose25.joints[9])
    assert.equal("right_heel", skeletons.openpose25.joints[25])
    local mini = skeletons.minirgbd25
    local places = { leftThigh = "left_hip", rightCalf = "right_knee", leftFoot = "left_ankle", rightUpperArm = "right_shoulder",
      leftForeArm = "left_elbow", rightHand = "right_wrist", leftToes = "left_foot_index", rightFingers = "right_index", noseVertex = "nose" }
    for j, name in ipairs(mini.documented) do
      if places[name] then assert.equal(places[name], mini.joints[j]) end
    end
    assert.equal(25, #mini.documented)
  end)

  it("converts by name; what is absent is NaN with a score of 0; neck and mid hip are means", function()
    local from = numbered(3, 33, 5)
    local to = skeletons.convert(from, "blazepose33", "openpose25")
    assert.same({ 3, 25, 5 }, to.shape)
    local p, s = to:ptr(), skeletons.openpose25
    local function at(t, joint, c) return p[(t * 25 + s.index[joint] - 1) * 5 + c] end
    assert.equal(214, at(2, "left_elbow", 0))
    assert.equal(-214, at(2, "left_elbow", 1))
    assert.equal((112 + 113) / 2, at(1, "neck", 0))
    assert.equal((24 + 25) / 2, at(0, "mid_hip", 0))
    assert.near(.9, at(0, "mid_hip", 3), 1e-6)
    assert.is_true(at(0, "left_small_toe", 0) ~= at(0, "left_small_toe", 0))
    assert.equal(0, at(0, "left_small_toe", 3))
    assert.equal(0, at(0, "left_small_toe", 4))
  end)

  it("keeps NaN, and makes no mean of a missing half", function()
    local from = numbered(1, 17, 3)
    from:ptr()[5 * 3] = 0 / 0 -- left shoulder
    local p = skeletons.convert(from, "coco17", "openpose18"):ptr()
    assert.is_true(p[1 * 3] ~= p[1 * 3])
    assert.is_true(p[5 * 3] ~= p[5 * 3])
    assert.equal(7, p[2 * 3])
  end)

  it("goes from every skeleton to every other without losing a shared joint", function()
    for a, n in pairs(sizes) do
      for b, m in pairs(sizes) do
        local out = skeletons.convert(numbered(2, n, 2), a, b)
        assert.same({ 2, m, 2 }, out.shape)
        for j, joint in ipairs(skeletons[b].joints) do
          if skeletons[a].index[joint] then assert.equal(skeletons[a].index[joint], out:ptr()[(j - 1) * 2], a .. " " .. b .. " " .. joint) end
        end
      end
    end
  end)

  it("mirrors: x turned about, sides exchanged, twice the same", function()
    local from = numbered(2, 18, 3)
    local once = skeletons.mirror(from, "openpose18", 640)
    local s = skeletons.openpose18
    assert.equal(640 - s.index.right_wrist, once:ptr()[(s.index.left_wrist - 1) * 3])
    assert.same(from:totable(), skeletons.mirror(once, "openpose18", 640):totable())
  end)

  it("refuses by name", function()
    assert.error_matches(function() skeletons.get("coco18") end, "no skeleton \"coco18\"; there are blazepose33")
    assert.error_matches(function() skeletons.convert(numbered(1, 18, 3), "coco17", "openpose18") end, "want %[T,17,C%]")
    assert.error_matches(function() skeletons.mirror(lr.zeros({ 3, 4 }), "coco17", 1) end, "want %[T,17,C%]")
  end)
end)

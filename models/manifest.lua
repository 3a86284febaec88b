-- Pretrained weights: what they are called, what they must hash to, under what licence and where they come from. Holds no network definitions.
-- files: name, sha256 (versions that answer alike, any will do), package (path inside the package, absent where it does not carry the
-- file), generation (pins the version at the official address), unofficial (the version at the official address is another one).
return {
  official = "https://storage.googleapis.com/mediapipe-assets/",
  package = {name = "mediapipe", version = "0.10.21", python = "3.11", platform = "manylinux_2_28_x86_64"},
  licence = "Apache-2.0",
  default = {"pose_detection", "pose_landmark_full"},
  files = {
    {
      name = "pose_detection", generation = "1661875889147923", package = "mediapipe/modules/pose_detection/pose_detection.tflite",
      sha256 = {
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
        "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85",
      },
    },
    {
      name = "pose_landmark_full", generation = "1661875894245786", package = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
      sha256 = {"e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"},
    },
    {
      name = "pose_landmark_heavy", generation = "1661875897944151",
      sha256 = {"59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe"},
    },
    {
      name = "pose_landmark_lite", generation = "1661875901231143",
      sha256 = {"f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61"},
    },
    {
      name = "face_detection_full_range_sparse", package = "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
      sha256 = {"2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1"},
    },
    {
      name = "face_detection_short_range", package = "mediapipe/modules/face_detection/face_detection_short_range.tflite",
      sha256 = {"bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"},
    },
    {
      name = "face_landmark", package = "mediapipe/modules/face_landmark/face_landmark.tflite",
      sha256 = {"1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"},
    },
    {
      name = "face_landmark_with_attention", package = "mediapipe/modules/face_landmark/face_landmark_with_attention.tflite",
      sha256 = {"e06a804e0144f9929eda782122916b35d60c697c3c9344013ca2bbe76a6ce2b4"},
    },
    {
      name = "hand_landmark_full", package = "mediapipe/modules/hand_landmark/hand_landmark_full.tflite", unofficial = true,
      sha256 = {"11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"},
    },
    {
      name = "palm_detection_full", package = "mediapipe/modules/palm_detection/palm_detection_full.tflite",
      sha256 = {"1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54"},
    },
    {
      name = "hand_recrop", package = "mediapipe/modules/holistic_landmark/hand_recrop.tflite", unofficial = true,
      sha256 = {"67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d"},
    },
  },
}

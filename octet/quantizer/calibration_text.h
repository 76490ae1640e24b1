// The text that a model is calibrated and judged on, as token ids. Files:
//   *.txt    UTF-8; tokenised as one text and cut into samples of max_seq_len tokens
//   *.jsonl  an object on each line, a sample each: {"text": "..."} or {"messages": [{"role", "content"}, ...]}, which
//            the model's chat template renders; longer ones are cut
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace octet {

struct CalibrationText {
  std::vector<std::vector<int32_t>> samples;   // what statistics are taken of
  std::vector<std::vector<int32_t>> held_out;  // what the result is judged on; not among the samples

  int64_t num_tokens() const;
  std::string digest() const;  // of all ids, in hexadecimal
};

// A file, or all files of these kinds of a folder, in the order of their names. Throws Error{kInvalid} for a file that
// is empty, not UTF-8 or has a broken line, with its number.
std::vector<std::vector<int32_t>> read_calibration(const std::string& path, const std::string& model_folder,
                                                   int64_t max_seq_len);

// num_samples samples and an eighth of that, at most 32, to judge by, spread evenly over `all`; fewer where there are
// fewer, at least one of each. Of a single one both, with a warning. Throws Error{kInvalid} when there is none.
CalibrationText divide_samples(std::vector<std::vector<int32_t>> all, int64_t num_samples);

// At most `count` of `all`, spread evenly: to judge by, where that is another text. Throws as divide_samples.
std::vector<std::vector<int32_t>> take_evenly(std::vector<std::vector<int32_t>> all, int64_t count);

}  // namespace octet

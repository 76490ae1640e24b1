// A tiny Llama as a producer of 8-bit checkpoints would write it: codes and scales under the producer's names, beside
// the real numbers that they stand for, which are computed here and not by what is tested.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/checkpoints/tiny_llama.h"

namespace octet {

// Codes of a matrix with one scale for each tile of rows x columns (0: all of them), and what they stand for.
struct Quantised {
  DType dtype = DType::kF8E4M3;
  Shape tiles;  // how many there are down and across
  std::vector<float> codes, scales, real;
};
struct Tiling {
  DType dtype = DType::kF8E4M3;
  int64_t rows = 0, columns = 0;
  // Scales as the file stores them: rounded to its dtype, or up to powers of two (u8: their exponents).
  DType scale_dtype = DType::kF32;
};
Quantised quantise(const Matrix& matrix, const Tiling& tiling);

class TinyTwin {
 public:
  // `changes`: of sizes, before the weights are made.
  explicit TinyTwin(const std::function<void(TinyLlama&)>& changes = {});

  TinyLlama& llama() { return llama_; }
  TestCheckpoint& checkpoint() { return checkpoint_; }
  // Writes a linear's codes as <module>.weight and its scales in the given shape under the given name.
  void add(const std::string& module, const Tiling& tiling, const std::string& scale_name, Shape scale_shape);
  // Its scale's shape: as the tiles lie, [tiles down, tiles across].
  void add(const std::string& module, const Tiling& tiling, const std::string& scale_name);
  void add_scalar(const std::string& name, float value, Shape shape = {}, DType dtype = DType::kF32) {
    checkpoint_.add(name, dtype, shape, {value});
  }
  // What `module` stands for, if add() wrote it.
  const std::map<std::string, std::vector<float>>& real() const { return real_; }

  // Everything that add() did not write, plain, and config.json.
  void write(const TestFolder& folder);
  // The same model with all its weights as the real numbers that they stand for, and no quantization_config.
  void write_real(const TestFolder& folder) const;

 private:
  TinyLlama llama_;
  TestCheckpoint checkpoint_;
  std::map<std::string, std::vector<float>> real_;
};

}  // namespace octet

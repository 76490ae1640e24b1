// Typed access to a GGUF file's metadata that names the file and the key in its errors.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/checkpoint/gguf.h"

namespace octet {

class GgufMetadata {
 public:
  GgufMetadata(const GgufFile& file, std::string_view path) : file_(file), path_(path) {}

  const std::string& path() const { return path_; }
  bool has(std::string_view key) const { return file_.metadata.contains(key); }

  // Nothing when absent; Error{kModel} when of another type.
  std::optional<int64_t> find_int(std::string_view key) const;
  std::optional<double> find_number(std::string_view key) const;  // an integer counts as one
  std::optional<bool> find_bool(std::string_view key) const;
  const std::string* find_string(std::string_view key) const;
  const std::vector<std::string>* find_strings(std::string_view key) const;
  const std::vector<int64_t>* find_ints(std::string_view key) const;
  const std::vector<double>* find_numbers(std::string_view key) const;

  int64_t get_int_in(std::string_view key, int64_t low, int64_t high) const;
  double get_number(std::string_view key) const;
  const std::string& get_string(std::string_view key) const;
  const std::vector<std::string>& get_strings(std::string_view key) const;

 private:
  const GgufValue* find(std::string_view key) const;
  [[noreturn]] void wrong_type(std::string_view key, std::string_view expected) const;
  [[noreturn]] void missing(std::string_view key) const;

  const GgufFile& file_;
  std::string path_;
};

}  // namespace octet

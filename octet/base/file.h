// Files: whole reads with a size limit, read-only memory maps, writes that appear whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace octet {

// Throws Error{kIo} when the file cannot be read, Error{kModel} when it is larger than max_bytes.
std::string read_file(const std::string& path, int64_t max_bytes);

// Writes to "<path>.partial" in the same folder, then renames it.
void write_file(const std::string& path, std::string_view contents);

// A file mapped read-only. Move-only. An empty file maps to an empty span.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }

  // Gives the pages that lie wholly inside `part` (a piece of bytes()) back to the operating system: they stop counting
  // as resident and are read again when touched.
  void drop_pages(std::span<const std::byte> part) const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace octet

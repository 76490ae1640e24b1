// The journal of an interrupted run, which may hold anything after a crash: it is continued or refused with an
// octet::Error.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "octet/base/error.h"
#include "octet/quantizer/figures.h"
#include "octet/quantizer/journal.h"

namespace {

// Written anew for every input, gone when the program ends.
class JournalFile {
 public:
  JournalFile() { close(mkstemp(path_.data())); }
  ~JournalFile() { unlink(path_.c_str()); }
  const std::string& with(const uint8_t* data, size_t size) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    return path_;
  }

 private:
  std::string path_ = "/tmp/octet_journal_XXXXXX";
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const JournalFile file;
  try {
    const octet::Json task = octet::parse_json(R"({"scheme": "fp8_channel", "source": "0a1b"})", "task");
    octet::Journal journal(file.with(data, size), task, true);
    if (const octet::Json* facts = journal.find("a")) octet::LinearFigures::from_json(*facts);
    journal.record(std::vector<octet::Journal::Entry>{{"unit", octet::parse_json(R"({"error": 0.5})", "facts")}});
    if (journal.find("unit") == nullptr) __builtin_trap();
    if (octet::Journal(file.with(nullptr, 0), task, false).find("unit") != nullptr) __builtin_trap();
  } catch (const octet::Error& error) {
    if (error.code() == octet::ErrorCode::kInternal) __builtin_trap();
  }
  return 0;
}

// Journal: what an interrupted run has finished, so that it can be continued: a file of JSON lines in the partial
// folder. The first says what the run was to do; one that was to do something else is not continued. A line that was
// cut short counts as not written.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "octet/base/json.h"

namespace octet {

class Journal {
 public:
  // A new journal at `path`, or the one there, if `resumed`. `task`: an object; Throws Error{kUsage} naming the first
  // of its members that differs.
  Journal(std::string path, const Json& task, bool resumed);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // What was recorded of a unit, or nullptr: it is not done.
  const Json* find(std::string_view unit) const;
  struct Entry {
    std::string unit;
    Json facts;
  };
  // These units are done, and their bytes are on the disk.
  void record(std::span<const Entry> entries);
  // Removes the file.
  void remove();

 private:
  void read(const Json& task);
  void append(const std::string& text);

  std::string path_;
  int fd_ = -1;
  std::map<std::string, Json, std::less<>> done_;
};

}  // namespace octet

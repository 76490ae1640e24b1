// How much memory this process can still get, from the files Linux states it in.
#pragma once

#include <cstdint>
#include <string>

namespace octet {

// The smaller of MemAvailable (<root>/proc/meminfo) and the room left under the memory limit of this process's control
// group and of the groups above it (<root>/proc/self/cgroup, <root>/sys/fs/cgroup; versions 1 and 2). File pages of a
// group count as room: the kernel takes them back. Missing or unreadable files bound nothing. `root` is "" but in
// tests.
int64_t read_available_memory(const std::string& root = "");

}  // namespace octet

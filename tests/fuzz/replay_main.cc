// Runs a fuzz target without libFuzzer: every file of the seed folder, then bounded random mutations of them from a
// fixed generator. Usage: <fuzzer> SEED_FOLDER [ROUNDS]. A target must neither crash nor hang nor throw.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

void mutate(std::string& bytes, std::mt19937& random) {
  const auto pick = [&](size_t bound) { return static_cast<size_t>(random() % std::max<size_t>(bound, 1)); };
  const size_t edits = 1 + pick(4);
  for (size_t i = 0; i < edits; ++i) {
    if (bytes.empty()) bytes.push_back('x');
    switch (pick(4)) {
      case 0:
        bytes[pick(bytes.size())] = static_cast<char>(random());
        break;
      case 1:
        bytes[pick(bytes.size())] ^= static_cast<char>(1u << pick(8));
        break;
      case 2:
        bytes.resize(pick(bytes.size()));
        break;
      default: {
        const size_t from = pick(bytes.size());
        const std::string piece = bytes.substr(from, 1 + pick(32));
        bytes.insert(pick(bytes.size()), piece);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "usage: %s SEED_FOLDER [ROUNDS]\n", argv[0]), 2;
  std::vector<std::filesystem::path> paths;
  if (std::filesystem::is_directory(argv[1])) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> seeds;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (seeds.empty()) return std::fprintf(stderr, "no seeds in %s\n", argv[1]), 1;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 500;
  std::mt19937 random(1);
  for (const std::string& seed : seeds) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
    for (int round = 0; round < rounds; ++round) {
      std::string bytes = seed;
      mutate(bytes, random);
      LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    }
  }
  std::printf("%zu seeds, %d mutations each: ok\n", seeds.size(), rounds);
  return 0;
}

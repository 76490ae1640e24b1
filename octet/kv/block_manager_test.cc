#include "octet/kv/block_manager.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <string>

#include "octet/base/error.h"

namespace octet {
namespace {

std::string hex(const BlockHash& hash) { return fmt::format("{:016x}{:016x}", hash.low, hash.high); }

// SipHash's own reference vectors for 128 bits: key 00 01 .. 0f, messages of 0, 1, 2, ... bytes 00 01 ..
// (vectors_sip128).
TEST(BlockHash, MatchesThePublishedVectors) {
  const SipKey key{0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};
  std::vector<std::byte> message;
  EXPECT_EQ(hex(siphash128(key, message)), "e6a825ba047f81a3930255c71472f66d");
  message.push_back(std::byte{0});
  EXPECT_EQ(hex(siphash128(key, message)), "44af996bd8c187da45fc229b11597634");
}

TEST(BlockHash, DependsOnEverything) {
  const SipKey key{1, 2};
  const std::vector<int32_t> tokens = {5, 6, 7, 8}, other = {5, 6, 7, 9};
  const BlockHash salt = hash_salt(key, ""), salted = hash_salt(key, "tenant");
  EXPECT_NE(salt, salted);
  EXPECT_EQ(hash_block(key, salt, tokens), hash_block(key, salt, tokens));
  EXPECT_NE(hash_block(key, salt, tokens), hash_block(key, salted, tokens));
  EXPECT_NE(hash_block(key, salt, tokens), hash_block(key, salt, other));
  EXPECT_NE(hash_block(key, salt, tokens), hash_block(SipKey{1, 3}, salt, tokens));
  EXPECT_NE(hash_block(key, salt, std::vector<int32_t>{5}), hash_block(key, salt, std::vector<int32_t>{5, 0}));
  EXPECT_NE(SipKey::random().k0, SipKey::random().k0);
}

BlockHash name(uint64_t i) { return {i * 0x9e3779b97f4a7c15ULL, i}; }

struct Tables {
  std::deque<std::vector<BlockId>> all;
  void check(const BlockManager& blocks) const {
    std::vector<const std::vector<BlockId>*> pointers;
    for (const auto& table : all) pointers.push_back(&table);
    blocks.check_integrity(pointers);
  }
};

TEST(BlockManager, AllocatesAllOrNothing) {
  BlockManager blocks({.num_blocks = 4, .block_size = 2});
  Tables tables{{{}, {}}};
  EXPECT_TRUE(blocks.allocate(3, tables.all[0]));
  EXPECT_FALSE(blocks.allocate(2, tables.all[1]));
  EXPECT_TRUE(tables.all[1].empty());
  EXPECT_TRUE(blocks.allocate(1, tables.all[1]));
  EXPECT_EQ(blocks.num_available(), 0);
  tables.check(blocks);
  blocks.release(tables.all[0]);
  EXPECT_EQ(blocks.num_available(), 3);
  tables.check(blocks);
}

TEST(BlockManager, FindsPublishedPrefixesAndNothingBehindAGap) {
  BlockManager blocks({.num_blocks = 8, .block_size = 2});
  Tables tables{{{}, {}}};
  const std::vector<BlockHash> names = {name(1), name(2), name(3)};
  ASSERT_TRUE(blocks.allocate(3, tables.all[0]));
  const std::vector<BlockId> first = tables.all[0];
  blocks.publish(first[0], names[0]);
  blocks.publish(first[2], names[2]);
  EXPECT_EQ(blocks.match(names).num_blocks, 1);
  blocks.publish(first[1], names[1]);
  EXPECT_EQ(blocks.match(names).num_blocks, 3);
  EXPECT_EQ(blocks.match(names).num_unreferenced, 0);
  blocks.release(tables.all[0]);
  EXPECT_EQ(blocks.match(names).num_unreferenced, 3);
  blocks.share_cached(names, tables.all[1]);
  EXPECT_EQ(tables.all[1], first);
  EXPECT_EQ(blocks.num_used(), 3);
  tables.check(blocks);
  blocks.reset_prefix_cache();
  EXPECT_EQ(blocks.match(names).num_blocks, 0);
  tables.check(blocks);
}

TEST(BlockManager, EvictsTheLeastRecentlyUsedAndTailsFirst) {
  BlockManager blocks({.num_blocks = 4, .block_size = 2});
  Tables tables{{{}, {}, {}}};
  ASSERT_TRUE(blocks.allocate(2, tables.all[0]));
  ASSERT_TRUE(blocks.allocate(2, tables.all[1]));
  for (uint64_t i = 0; i < 2; ++i) blocks.publish(tables.all[0][i], name(10 + i));
  for (uint64_t i = 0; i < 2; ++i) blocks.publish(tables.all[1][i], name(20 + i));
  blocks.release(tables.all[0]);
  blocks.release(tables.all[1]);
  ASSERT_TRUE(blocks.allocate(1, tables.all[2]));
  EXPECT_EQ(blocks.match(std::vector{name(10), name(11)}).num_blocks, 1);  // the older table's tail went
  ASSERT_TRUE(blocks.allocate(1, tables.all[2]));
  EXPECT_EQ(blocks.match(std::vector{name(10), name(11)}).num_blocks, 0);
  EXPECT_EQ(blocks.match(std::vector{name(20), name(21)}).num_blocks, 2);
  tables.check(blocks);
}

TEST(BlockManager, ForkedBlocksLiveUntilTheLastReferenceGoes) {
  BlockManager blocks({.num_blocks = 2, .block_size = 2, .enable_prefix_caching = false});
  Tables tables{{{}, {}}};
  ASSERT_TRUE(blocks.allocate(1, tables.all[0]));
  blocks.fork(tables.all[0], tables.all[1]);
  EXPECT_EQ(blocks.references(tables.all[1][0]), 2);
  blocks.release(tables.all[0]);
  EXPECT_EQ(blocks.num_used(), 1);
  blocks.publish(tables.all[1][0], name(1));
  EXPECT_EQ(blocks.match(std::vector{name(1)}).num_blocks, 0);  // no caching
  blocks.release(tables.all[1]);
  EXPECT_EQ(blocks.num_used(), 0);
}

// Random operations against a model that keeps for every name what was published under it.
TEST(BlockManager, RandomOperationsKeepEveryBlockCountedOnce) {
  std::mt19937 random(7);
  BlockManager blocks({.num_blocks = 23, .block_size = 4});
  Tables tables;
  tables.all.resize(6);
  std::vector<std::vector<BlockHash>> chains(6);
  std::map<BlockId, uint64_t> content;  // what a block was last published as
  auto pick = [&](int n) { return static_cast<size_t>(random() % static_cast<unsigned>(n)); };
  for (int step = 0; step < 20000; ++step) {
    auto& table = tables.all[pick(6)];
    switch (pick(5)) {
      case 0: {
        const size_t before = table.size();
        const auto count = static_cast<int64_t>(pick(6));
        const bool fits = count <= blocks.num_available();
        EXPECT_EQ(blocks.allocate(count, table), fits);
        for (size_t i = before; i < table.size(); ++i) content.erase(table[i]);
        break;
      }
      case 1:
        blocks.release(table);
        break;
      case 2: {
        if (table.empty()) break;
        const BlockId block = table[pick(static_cast<int>(table.size()))];
        const uint64_t value = pick(40);
        if (content.contains(block) || blocks.match(std::vector{name(value)}).num_blocks > 0) break;
        blocks.publish(block, name(value));
        content[block] = value;
        break;
      }
      case 3: {
        const std::vector<BlockHash> wanted = {name(pick(40)), name(pick(40))};
        const auto match = blocks.match(wanted);
        const size_t before = table.size();
        blocks.share_cached(std::span(wanted).first(static_cast<size_t>(match.num_blocks)), table);
        for (size_t i = before; i < table.size(); ++i) EXPECT_EQ(name(content.at(table[i])), wanted[i - before]);
        break;
      }
      default: {
        auto& other = tables.all[pick(6)];
        if (&other != &table && !other.empty()) blocks.fork(std::span(other).first(1), table);
      }
    }
    if (step % 16 == 0) tables.check(blocks);
  }
  for (auto& table : tables.all) blocks.release(table);
  tables.check(blocks);
  EXPECT_EQ(blocks.num_used(), 0);
}

}  // namespace
}  // namespace octet

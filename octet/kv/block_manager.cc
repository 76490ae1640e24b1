#include "octet/kv/block_manager.h"

#include <limits>

#include "octet/base/error.h"

namespace octet {

BlockManager::BlockManager(const BlockManagerOptions& options)
    : block_size_(options.block_size), enable_prefix_caching_(options.enable_prefix_caching), key_(options.key) {
  OCTET_CHECK(options.num_blocks >= 1 && options.num_blocks < std::numeric_limits<BlockId>::max());
  OCTET_CHECK(options.block_size >= 1);
  blocks_.resize(static_cast<size_t>(options.num_blocks) + 1);
  anchor_ = static_cast<BlockId>(options.num_blocks);
  at(anchor_).previous = at(anchor_).next = anchor_;
  for (BlockId block = 0; block < anchor_; ++block) insert_before(anchor_, block);
}

void BlockManager::insert_before(BlockId position, BlockId block) {
  const BlockId previous = at(position).previous;
  at(block).previous = previous;
  at(block).next = position;
  at(previous).next = block;
  at(position).previous = block;
}

void BlockManager::unlink(BlockId block) {
  at(at(block).previous).next = at(block).next;
  at(at(block).next).previous = at(block).previous;
}

void BlockManager::reference(BlockId block) {
  if (at(block).references++ == 0) {
    unlink(block);
    ++num_used_;
  }
}

void BlockManager::forget(BlockId block) {
  if (!at(block).named) return;
  cache_.erase(at(block).hash);
  at(block).named = false;
}

bool BlockManager::allocate(int64_t count, std::vector<BlockId>& table) {
  if (count > num_available()) return false;
  for (int64_t i = 0; i < count; ++i) {
    const BlockId block = at(anchor_).next;
    forget(block);
    reference(block);
    table.push_back(block);
  }
  return true;
}

BlockManager::Match BlockManager::match(std::span<const BlockHash> hashes) const {
  Match result;
  if (!enable_prefix_caching_) return result;
  for (const BlockHash& hash : hashes) {
    auto found = cache_.find(hash);
    if (found == cache_.end()) break;
    ++result.num_blocks;
    if (references(found->second) == 0) ++result.num_unreferenced;
  }
  return result;
}

void BlockManager::share_cached(std::span<const BlockHash> hashes, std::vector<BlockId>& table) {
  for (const BlockHash& hash : hashes) {
    auto found = cache_.find(hash);
    OCTET_CHECK(found != cache_.end());
    reference(found->second);
    table.push_back(found->second);
  }
}

void BlockManager::fork(std::span<const BlockId> blocks, std::vector<BlockId>& table) {
  for (BlockId block : blocks) {
    OCTET_CHECK(references(block) > 0);
    reference(block);
    table.push_back(block);
  }
}

void BlockManager::publish(BlockId block, const BlockHash& hash) {
  OCTET_CHECK(references(block) > 0);
  if (!enable_prefix_caching_ || at(block).named) return;
  if (!cache_.try_emplace(hash, block).second) return;
  at(block).named = true;
  at(block).hash = hash;
}

void BlockManager::release(std::vector<BlockId>& table) {
  for (size_t i = table.size(); i-- > 0;) {
    const BlockId block = table[i];
    OCTET_CHECK(references(block) > 0);
    if (--at(block).references > 0) continue;
    --num_used_;
    // Nameless blocks are handed out first, named ones in the order of their release.
    insert_before(at(block).named ? anchor_ : at(anchor_).next, block);
  }
  table.clear();
}

void BlockManager::reset_prefix_cache() {
  for (auto& [hash, block] : cache_) at(block).named = false;
  cache_.clear();
}

void BlockManager::check_integrity(std::span<const std::vector<BlockId>* const> tables) const {
  std::vector<int32_t> held(blocks_.size(), 0);
  for (const auto* table : tables) {
    for (BlockId block : *table) {
      OCTET_CHECK(block >= 0 && block < anchor_);
      ++held[static_cast<size_t>(block)];
    }
  }
  int64_t num_listed = 0, num_named = 0, num_used = 0;
  for (BlockId block = blocks_[static_cast<size_t>(anchor_)].next; block != anchor_;
       block = blocks_[static_cast<size_t>(block)].next) {
    OCTET_CHECK(references(block) == 0);
    OCTET_CHECK(blocks_[static_cast<size_t>(blocks_[static_cast<size_t>(block)].next)].previous == block);
    OCTET_CHECK(++num_listed <= num_blocks());
  }
  for (BlockId block = 0; block < anchor_; ++block) {
    const Block& value = blocks_[static_cast<size_t>(block)];
    OCTET_CHECK(value.references == held[static_cast<size_t>(block)]);
    num_used += value.references > 0;
    if (!value.named) continue;
    ++num_named;
    auto found = cache_.find(value.hash);
    OCTET_CHECK(found != cache_.end() && found->second == block);
  }
  OCTET_CHECK(num_used == num_used_);
  OCTET_CHECK(num_listed + num_used == num_blocks());
  OCTET_CHECK(num_named == num_cached());
}

}  // namespace octet

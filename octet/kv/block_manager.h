// BlockManager: which KV block belongs to whom. Pure host code: integers in, integers out; one thread.
//
// A block is in one of three states: in use (referenced by one or more block tables), free, or cached: unreferenced,
// but its content still has a name (BlockHash) under which a later sequence can find it. Allocation takes free blocks
// first, then the least recently used cached one. Every operation is O(1) per block.
//
// Only full blocks are ever named or shared. A partly filled block belongs to one sequence alone, so there is no
// copy-on-write: whoever shares a prefix computes its last, partial block itself.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "octet/kv/block_hash.h"

namespace octet {

using BlockId = int32_t;

struct BlockManagerOptions {
  int64_t num_blocks = 0;
  int64_t block_size = 16;  // tokens
  bool enable_prefix_caching = true;
  SipKey key = SipKey::random();
};

class BlockManager {
 public:
  explicit BlockManager(const BlockManagerOptions& options);

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()) - 1; }
  int64_t block_size() const { return block_size_; }
  int64_t num_used() const { return num_used_; }
  // Blocks that allocate() can hand out: free ones and cached ones nobody refers to.
  int64_t num_available() const { return num_blocks() - num_used_; }
  bool caches_prefixes() const { return enable_prefix_caching_; }
  SipKey key() const { return key_; }

  // Appends `count` blocks of undefined content to `table`; false, and nothing happens, when fewer are available.
  [[nodiscard]] bool allocate(int64_t count, std::vector<BlockId>& table);

  // How many leading blocks of a sequence whose blocks have these names are in the cache, and how many of those are
  // unreferenced now (they count as available until share_cached takes them).
  struct Match {
    int64_t num_blocks = 0;
    int64_t num_unreferenced = 0;
  };
  Match match(std::span<const BlockHash> hashes) const;
  // Appends the cached blocks of these names to `table`, one reference each. All must be there (see match).
  void share_cached(std::span<const BlockHash> hashes, std::vector<BlockId>& table);
  // Appends blocks that another table holds, one reference each: n > 1 sequences fork from their prompt.
  void fork(std::span<const BlockId> blocks, std::vector<BlockId>& table);

  // Names a full, computed block of a table. When another block already has the name, this one stays nameless.
  void publish(BlockId block, const BlockHash& hash);

  // Drops the table's references and empties it. The last blocks of a sequence are evicted before its first ones.
  void release(std::vector<BlockId>& table);
  // Forgets every name; blocks in use stay in use.
  void reset_prefix_cache();

  int64_t num_cached() const { return static_cast<int64_t>(cache_.size()); }
  int32_t references(BlockId block) const { return blocks_[static_cast<size_t>(block)].references; }
  // Throws Error{kInternal} unless every block is counted exactly once and has as many references as `tables` hold.
  // O(n).
  void check_integrity(std::span<const std::vector<BlockId>* const> tables) const;

 private:
  struct Block {
    int32_t references = 0;
    BlockId previous = 0;  // neighbours in the list of available blocks
    BlockId next = 0;
    bool named = false;
    BlockHash hash;
  };

  Block& at(BlockId block) { return blocks_[static_cast<size_t>(block)]; }
  void insert_before(BlockId position, BlockId block);
  void unlink(BlockId block);
  void reference(BlockId block);
  void forget(BlockId block);

  int64_t block_size_;
  bool enable_prefix_caching_;
  SipKey key_;
  // The last element is the anchor of the circular list of available blocks: anchor.next is handed out first.
  std::vector<Block> blocks_;
  BlockId anchor_;
  int64_t num_used_ = 0;
  std::unordered_map<BlockHash, BlockId, BlockHashOf> cache_;
};

}  // namespace octet

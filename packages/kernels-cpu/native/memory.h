// Buffers of one backend: handles, storage, views, file mappings and the caching allocator. Used on the JavaScript thread only.
//
// Memory is handed out and taken back at enqueue time; because the queue runs in order, a block freed after a kernel was enqueued can serve the next kernel at
// once. What must wait for the queue (giving pages back, unmapping) is returned to the caller as ranges to be released by a queue command.
#ifndef SLOTH_MEMORY_H
#define SLOTH_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace sloth {

// A range for the queue to give back: unmapped as a whole, or its pages dropped but the addresses kept.
struct Release {
  char* base;
  size_t bytes;
  bool unmap;
};

// Best fit with splitting and coalescing over large anonymous mappings, so that steps of varying shapes reuse the same touched pages; size classes with at
// most 12.5 % waste below 64 KiB.
class Arena {
 public:
  // Bytes that a request of `bytes` occupies.
  static size_t rounded(size_t bytes);
  // nullptr when the system has no memory.
  char* alloc(size_t bytes);
  void free(char* ptr, size_t bytes);
  void trim(std::vector<Release>& out);
  void release_all();
  size_t used() const { return used_; }
  // Bytes that were handed out once and are free now.
  size_t cached() const;

 private:
  struct Segment {
    size_t bytes;
    size_t high;  // end of the part that was ever handed out
  };
  char* alloc_large(size_t bytes);
  void free_large(char* ptr, size_t bytes);
  void insert_free(char* ptr, size_t bytes);
  void erase_free(std::map<char*, size_t>::iterator it);

  std::map<char*, Segment> segments_;
  std::map<char*, size_t> freeByAddress_;
  std::set<std::pair<size_t, char*>> freeBySize_;
  std::vector<char*> small_[80];
  size_t used_ = 0;
};

struct FileMapping {
  std::string path;
  char* base;
  size_t bytes;
  int64_t device, inode, size, mtimeNs;
  int64_t refs;
};

struct Storage {
  char* base;
  size_t bytes;
  int64_t refs;
  FileMapping* mapping;  // nullptr for memory of the arena
};

// What recorded calls need to stay as it is: blocks that only they use, and storages that others use too.
struct Capture {
  std::set<Storage*> own;                  // made since recording began and alive; empty afterwards
  std::set<Storage*> pinned;               // one reference each
  std::multimap<size_t, char*> blocks;     // given back while recording: free for later calls of the same recording, never for others
};

struct Buffer {
  char* ptr;
  int64_t bytes;
  bool readOnly;
};

enum class MemoryStatus { Ok, Budget, Exhausted, Freed, Range, File, TooMany };

class Memory {
 public:
  ~Memory();
  MemoryStatus alloc(int64_t bytes, double* handle);
  MemoryStatus view(double parent, int64_t offset, int64_t bytes, double* handle);
  // `freed` gets the block when this was the storage's last handle (base is nullptr otherwise), `release` a mapping to be unmapped by the queue.
  MemoryStatus free(double handle, Release* freed, Release* release);
  // errorNumber gets errno on File.
  MemoryStatus map_file(const std::string& path, int64_t offset, int64_t bytes, double* handle, int* errorNumber);
  void trim(std::vector<Release>& out);
  // While recording, blocks that are given back serve only what is recorded after them.
  void begin_capture();
  // Ends the recording; what it needs stays until release_capture.
  Capture* end_capture();
  // Keeps the storage of a live handle for the calls that are being recorded.
  void pin(double handle);
  // Gives back what recorded calls needed: blocks as `freed`, mappings as `release`.
  void release_capture(Capture* capture, std::vector<Release>& freed, std::vector<Release>& release);
  // Storage of a live handle; nullptr otherwise. Inline: this is on the path of every kernel argument.
  const Buffer* find(double handle) const {
    // 24 bits of index below the generation; anything that is no such integer finds nothing.
    if (!(handle >= 16777216.0 && handle < 9007199254740992.0)) return nullptr;
    const uint64_t bits = static_cast<uint64_t>(handle);
    const uint64_t index = bits & 0xffffff;
    if (static_cast<double>(bits) != handle || index >= slots_.size()) return nullptr;
    const Slot& slot = slots_[index];
    return slot.live && slot.generation == (bits >> 24) ? &slot.buffer : nullptr;
  }

  int64_t budget = 0;
  int64_t liveBuffers = 0;
  int64_t liveBytes = 0;
  int64_t peakBytes = 0;
  int64_t mappedBytes = 0;
  int64_t cached() const { return static_cast<int64_t>(arena_.cached()); }

 private:
  struct Slot {
    Buffer buffer;
    Storage* storage;
    uint32_t generation;
    bool live;
  };
  MemoryStatus take_slot(Storage* storage, char* ptr, int64_t bytes, double* handle);
  void unref(Storage* storage, Release* freed, Release* release);

  std::vector<Slot> slots_;
  std::vector<uint32_t> freeSlots_;
  std::vector<FileMapping*> mappings_;
  Capture* capturing_ = nullptr;
  std::set<Capture*> captures_;
  Arena arena_;
};

}  // namespace sloth

#endif

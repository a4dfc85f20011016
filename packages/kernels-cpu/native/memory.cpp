#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <new>

namespace sloth {

namespace {

constexpr size_t ALIGN = 64;
constexpr size_t PAGE = 4096;
constexpr size_t SMALL_LIMIT = 65536;
// Address space only: pages are taken when first touched.
constexpr size_t SEGMENT_BYTES = size_t{128} << 20;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

// Classes 0..15 are 64 .. 1024 by 64; then eight a doubling up to 65536.
int small_class(size_t bytes) {
  if (bytes <= 1024) return static_cast<int>((bytes + 63) / 64) - 1;
  int exponent = 63 - __builtin_clzll(static_cast<unsigned long long>(bytes - 1));  // 2^exponent <= bytes - 1
  const size_t step = (size_t{1} << exponent) / 8;
  const size_t eighth = (bytes - 1 - (size_t{1} << exponent)) / step;  // 0..7
  return 16 + (exponent - 10) * 8 + static_cast<int>(eighth);
}

size_t small_bytes(int cls) {
  if (cls < 16) return static_cast<size_t>(cls + 1) * 64;
  const int exponent = 10 + (cls - 16) / 8;
  const size_t base = size_t{1} << exponent;
  return base + base / 8 * static_cast<size_t>((cls - 16) % 8 + 1);
}

}  // namespace

size_t Arena::rounded(size_t bytes) {
  if (bytes == 0) bytes = 1;
  if (bytes <= SMALL_LIMIT) return small_bytes(small_class(bytes));
  return round_up(bytes, PAGE);
}

char* Arena::alloc(size_t bytes) {
  const size_t size = rounded(bytes);
  if (size > SMALL_LIMIT) {
    char* p = alloc_large(size);
    if (p != nullptr) used_ += size;
    return p;
  }
  std::vector<char*>& list = small_[small_class(size)];
  if (list.empty()) {
    const size_t chunk = round_up(std::min(std::max(size * 16, size_t{16384}), size_t{524288}), PAGE);
    char* base = alloc_large(chunk);
    if (base == nullptr) return nullptr;
    for (size_t at = chunk / size; at > 0; at--) list.push_back(base + (at - 1) * size);
  }
  char* p = list.back();
  list.pop_back();
  used_ += size;
  return p;
}

void Arena::free(char* ptr, size_t bytes) {
  const size_t size = rounded(bytes);
  used_ -= size;
  if (size > SMALL_LIMIT) free_large(ptr, size);
  else small_[small_class(size)].push_back(ptr);
}

void Arena::insert_free(char* ptr, size_t bytes) {
  freeByAddress_.emplace(ptr, bytes);
  freeBySize_.emplace(bytes, ptr);
}

void Arena::erase_free(std::map<char*, size_t>::iterator it) {
  freeBySize_.erase({it->second, it->first});
  freeByAddress_.erase(it);
}

char* Arena::alloc_large(size_t bytes) {
  auto fit = freeBySize_.lower_bound({bytes, nullptr});
  if (fit == freeBySize_.end()) {
    size_t size = std::max(SEGMENT_BYTES, round_up(bytes, size_t{2} << 20));
    void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED && size > bytes) {
      size = bytes;
      base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (base == MAP_FAILED) return nullptr;
    segments_.emplace(static_cast<char*>(base), Segment{size, 0});
    insert_free(static_cast<char*>(base), size);
    fit = freeBySize_.lower_bound({bytes, nullptr});
  }
  char* p = fit->second;
  const size_t size = fit->first;
  erase_free(freeByAddress_.find(p));
  if (size > bytes) insert_free(p + bytes, size - bytes);
  auto segment = std::prev(segments_.upper_bound(p));
  segment->second.high = std::max(segment->second.high, static_cast<size_t>(p - segment->first) + bytes);
  return p;
}

void Arena::free_large(char* ptr, size_t bytes) {
  auto segment = std::prev(segments_.upper_bound(ptr));
  char* const end = segment->first + segment->second.bytes;
  auto next = freeByAddress_.lower_bound(ptr);
  if (next != freeByAddress_.end() && next->first == ptr + bytes && ptr + bytes < end) {
    bytes += next->second;
    auto gone = next++;
    erase_free(gone);
  }
  if (next != freeByAddress_.begin() && ptr > segment->first) {
    auto before = std::prev(next);
    if (before->first + before->second == ptr) {
      ptr = before->first;
      bytes += before->second;
      erase_free(before);
    }
  }
  insert_free(ptr, bytes);
}

size_t Arena::cached() const {
  size_t high = 0;
  for (const auto& s : segments_) high += s.second.high;
  return high > used_ ? high - used_ : 0;
}

void Arena::trim(std::vector<Release>& out) {
  std::vector<std::pair<char*, size_t>> ranges(freeByAddress_.begin(), freeByAddress_.end());
  for (const auto& range : ranges) {
    auto segment = std::prev(segments_.upper_bound(range.first));
    if (range.second == segment->second.bytes) {
      erase_free(freeByAddress_.find(range.first));
      out.push_back({segment->first, segment->second.bytes, true});
      segments_.erase(segment);
      continue;
    }
    const size_t offset = static_cast<size_t>(range.first - segment->first);
    if (offset >= segment->second.high) continue;  // never touched
    out.push_back({range.first, range.second, false});
    if (offset + range.second >= segment->second.high) segment->second.high = offset;
  }
}

void Arena::release_all() {
  for (const auto& s : segments_) munmap(s.first, s.second.bytes);
  segments_.clear();
  freeByAddress_.clear();
  freeBySize_.clear();
  for (auto& list : small_) list.clear();
  used_ = 0;
}

Memory::~Memory() {
  std::set<Storage*> storages;
  for (const Slot& slot : slots_) {
    if (slot.live) storages.insert(slot.storage);
  }
  for (Capture* c : captures_) {
    storages.insert(c->pinned.begin(), c->pinned.end());
    delete c;
  }
  for (Storage* s : storages) delete s;
  for (FileMapping* m : mappings_) {
    munmap(m->base, m->bytes);
    delete m;
  }
  arena_.release_all();
}

MemoryStatus Memory::take_slot(Storage* storage, char* ptr, int64_t bytes, double* handle) {
  uint32_t index;
  if (!freeSlots_.empty()) {
    index = freeSlots_.back();
    freeSlots_.pop_back();
  } else {
    if (slots_.size() >= 0xffffff) return MemoryStatus::TooMany;
    index = static_cast<uint32_t>(slots_.size());
    slots_.push_back(Slot{{nullptr, 0, false}, nullptr, 0, false});
  }
  Slot& slot = slots_[index];
  slot.generation++;
  slot.live = true;
  slot.storage = storage;
  slot.buffer = Buffer{ptr, bytes, storage->mapping != nullptr};
  storage->refs++;
  liveBuffers++;
  *handle = static_cast<double>((static_cast<uint64_t>(slot.generation) << 24) | index);
  return MemoryStatus::Ok;
}

MemoryStatus Memory::alloc(int64_t bytes, double* handle) {
  if (budget > 0 && liveBytes + bytes > budget) return MemoryStatus::Budget;
  char* base = nullptr;
  if (capturing_ != nullptr) {
    const auto spare = capturing_->blocks.find(Arena::rounded(static_cast<size_t>(bytes)));
    if (spare != capturing_->blocks.end()) {
      base = spare->second;
      capturing_->blocks.erase(spare);
    }
  }
  if (base == nullptr) base = arena_.alloc(static_cast<size_t>(bytes));
  if (base == nullptr) return MemoryStatus::Exhausted;
  Storage* storage = new Storage{base, static_cast<size_t>(bytes), 0, nullptr};
  const MemoryStatus status = take_slot(storage, base, bytes, handle);
  if (status != MemoryStatus::Ok) {
    arena_.free(base, static_cast<size_t>(bytes));
    delete storage;
    return status;
  }
  if (capturing_ != nullptr) capturing_->own.insert(storage);
  liveBytes += bytes;
  peakBytes = std::max(peakBytes, liveBytes);
  return status;
}

MemoryStatus Memory::view(double parent, int64_t offset, int64_t bytes, double* handle) {
  const Buffer* buffer = find(parent);
  if (buffer == nullptr) return MemoryStatus::Freed;
  if (offset < 0 || bytes < 0 || offset > buffer->bytes || bytes > buffer->bytes - offset) return MemoryStatus::Range;
  Storage* storage = slots_[static_cast<uint64_t>(parent) & 0xffffff].storage;
  return take_slot(storage, buffer->ptr + offset, bytes, handle);
}

MemoryStatus Memory::free(double handle, Release* freed, Release* release) {
  *freed = Release{nullptr, 0, false};
  *release = Release{nullptr, 0, false};
  if (find(handle) == nullptr) return MemoryStatus::Freed;
  const uint32_t index = static_cast<uint32_t>(static_cast<uint64_t>(handle) & 0xffffff);
  Slot& slot = slots_[index];
  Storage* storage = slot.storage;
  slot.live = false;
  slot.storage = nullptr;
  liveBuffers--;
  // A slot whose generations are used up (handles are exact integers below 2^53) is never used again.
  if (slot.generation < 0x1fffffff) freeSlots_.push_back(index);
  unref(storage, freed, release);
  return MemoryStatus::Ok;
}

void Memory::unref(Storage* storage, Release* freed, Release* release) {
  *freed = Release{nullptr, 0, false};
  *release = Release{nullptr, 0, false};
  if (--storage->refs > 0) return;
  if (storage->mapping != nullptr) {
    FileMapping* mapping = storage->mapping;
    if (--mapping->refs == 0) {
      mappedBytes -= static_cast<int64_t>(mapping->bytes);
      *release = Release{mapping->base, mapping->bytes, true};
      mappings_.erase(std::find(mappings_.begin(), mappings_.end(), mapping));
      delete mapping;
    }
  } else {
    liveBytes -= static_cast<int64_t>(storage->bytes);
    *freed = Release{storage->base, storage->bytes, false};
    if (capturing_ != nullptr && capturing_->own.erase(storage) > 0) capturing_->blocks.emplace(Arena::rounded(storage->bytes), storage->base);
    else arena_.free(storage->base, storage->bytes);
  }
  delete storage;
}

void Memory::begin_capture() {
  capturing_ = new Capture();
  captures_.insert(capturing_);
}

Capture* Memory::end_capture() {
  Capture* c = capturing_;
  capturing_ = nullptr;
  for (Storage* s : c->own) {
    if (c->pinned.insert(s).second) s->refs++;
  }
  c->own.clear();
  // Free for nobody now, so they count.
  for (const auto& block : c->blocks) liveBytes += static_cast<int64_t>(block.first);
  peakBytes = std::max(peakBytes, liveBytes);
  return c;
}

void Memory::pin(double handle) {
  Storage* storage = slots_[static_cast<uint64_t>(handle) & 0xffffff].storage;
  if (capturing_->own.count(storage) == 0 && capturing_->pinned.insert(storage).second) storage->refs++;
}

void Memory::release_capture(Capture* capture, std::vector<Release>& freed, std::vector<Release>& release) {
  for (const auto& block : capture->blocks) {
    liveBytes -= static_cast<int64_t>(block.first);
    freed.push_back({block.second, block.first, false});
    arena_.free(block.second, block.first);
  }
  for (Storage* s : capture->pinned) {
    Release block, mapping;
    unref(s, &block, &mapping);
    if (block.base != nullptr) freed.push_back(block);
    if (mapping.base != nullptr) release.push_back(mapping);
  }
  captures_.erase(capture);
  delete capture;
}

MemoryStatus Memory::map_file(const std::string& path, int64_t offset, int64_t bytes, double* handle, int* errorNumber) {
  *errorNumber = 0;
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    *errorNumber = errno;
    return MemoryStatus::File;
  }
  struct stat st;
  if (fstat(fd, &st) != 0 || S_ISDIR(st.st_mode)) {
    *errorNumber = S_ISDIR(st.st_mode) ? EISDIR : errno;
    close(fd);
    return MemoryStatus::File;
  }
  const int64_t size = static_cast<int64_t>(st.st_size);
  if (offset < 0 || bytes < 0 || offset > size || bytes > size - offset) {
    close(fd);
    return MemoryStatus::Range;
  }
#if defined(__APPLE__)
  const int64_t mtime = static_cast<int64_t>(st.st_mtimespec.tv_sec) * 1000000000 + st.st_mtimespec.tv_nsec;
#else
  const int64_t mtime = static_cast<int64_t>(st.st_mtim.tv_sec) * 1000000000 + st.st_mtim.tv_nsec;
#endif
  FileMapping* mapping = nullptr;
  for (FileMapping* m : mappings_) {
    if (m->device == static_cast<int64_t>(st.st_dev) && m->inode == static_cast<int64_t>(st.st_ino) && m->size == size && m->mtimeNs == mtime) mapping = m;
  }
  if (mapping == nullptr) {
    // An empty file has no mapping; a page of zeros stands for it so that a range of 0 bytes has an address.
    const size_t length = size > 0 ? static_cast<size_t>(size) : PAGE;
    void* base = size > 0 ? mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, 0) : mmap(nullptr, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
      *errorNumber = errno;
      close(fd);
      return MemoryStatus::File;
    }
    mapping = new FileMapping{path, static_cast<char*>(base), length, static_cast<int64_t>(st.st_dev), static_cast<int64_t>(st.st_ino), size, mtime, 0};
    mappings_.push_back(mapping);
    mappedBytes += static_cast<int64_t>(length);
  }
  close(fd);
  Storage* storage = new Storage{mapping->base + offset, static_cast<size_t>(bytes), 0, mapping};
  const MemoryStatus status = take_slot(storage, storage->base, bytes, handle);
  if (status != MemoryStatus::Ok) {
    delete storage;
    return status;
  }
  mapping->refs++;
  return status;
}

void Memory::trim(std::vector<Release>& out) { arena_.trim(out); }

}  // namespace sloth

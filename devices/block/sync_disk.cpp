// The synchronous engine.
#include "devices/block/sync_disk.hpp"

namespace masu::block {

void SyncDisk::submit(const Request& request) {
    transfer_.start(file_, request);
    finished_.push_back({request.token, transfer_.run()});
}

void SyncDisk::kick() {
    if (!finished_.empty())
        event_.signal();
}

void SyncDisk::reap(std::vector<Completion>& done) {
    event_.take();
    done.insert(done.end(), finished_.begin(), finished_.end());
    finished_.clear();
}

}  // namespace masu::block

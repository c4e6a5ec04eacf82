// libFuzzer's mutator for GGUF: takes a file apart, changes some of what it says, and writes it again. So most of what
// comes out is still a GGUF file, with one or a few wrong things in it, and gets past the first checks.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "ggml.h"
#include "gguf.h"

#include "names.inc"  // what libllama knows: architectures, keys, tensors, tokenizers; campaign.py writes it

extern "C" size_t LLVMFuzzerMutate(uint8_t * data, size_t size, size_t max_size);

namespace {

using bytes = std::vector<uint8_t>;

struct key_value {
    std::string key;
    uint32_t    type;
    uint32_t    item_type = 0;  // of an array
    bytes       value;          // of a string or an array, without its length
    uint64_t    length = 0;     // of an array, in items
};

struct tensor {
    std::string           name;
    std::vector<uint64_t> shape;
    uint32_t              type;
    uint64_t              offset;
};

struct model_file {
    uint32_t               version  = 3;
    int64_t                extra_kv = 0;  // what the header's counts are wrong by
    int64_t                extra_tensors = 0;
    std::vector<key_value> keys;
    std::vector<tensor>    tensors;
    bytes                  data;
};

size_t size_of_type(uint32_t type) {
    static const size_t sizes[GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < GGUF_TYPE_COUNT ? sizes[type] : 0;
}

// ---- reading; nothing is believed

class reader {
  public:
    reader(const uint8_t * data, size_t size) : at(data), end(data + size) {}

    bool read(model_file & file) {
        uint64_t n_tensors = 0, n_keys = 0;
        if (number<uint32_t>() != 0x46554747) {
            return false;
        }
        file.version = number<uint32_t>();
        n_tensors    = number<uint64_t>();
        n_keys       = number<uint64_t>();
        for (uint64_t i = 0; ok && i < n_keys && i < 1000; i++) {
            file.keys.push_back(key());
        }
        for (uint64_t i = 0; ok && i < n_tensors && i < 1000; i++) {
            file.tensors.push_back(info());
        }
        if (!ok) {
            return false;
        }
        const size_t head = static_cast<size_t>(at - start);
        take((32 - head % 32) % 32);
        file.data = take(static_cast<size_t>(end - at));
        return true;
    }

  private:
    bytes take(uint64_t n) {
        if (n > static_cast<uint64_t>(end - at)) {
            ok = false;
            return {};
        }
        at += n;
        return bytes(at - n, at);
    }

    template <typename Number> Number number() {
        const bytes raw   = take(sizeof(Number));
        Number      value = 0;
        if (!raw.empty()) {
            memcpy(&value, raw.data(), sizeof(value));
        }
        return value;
    }

    std::string string() {
        const bytes raw = take(number<uint64_t>());
        return std::string(raw.begin(), raw.end());
    }

    key_value key() {
        key_value one;
        one.key  = string();
        one.type = number<uint32_t>();
        if (one.type == GGUF_TYPE_STRING) {
            one.value = take(number<uint64_t>());
        } else if (one.type == GGUF_TYPE_ARRAY) {
            one.item_type       = number<uint32_t>();
            one.length          = number<uint64_t>();
            const uint8_t * was = at;
            if (one.item_type == GGUF_TYPE_STRING) {
                for (uint64_t i = 0; ok && i < one.length; i++) {
                    take(number<uint64_t>());
                }
            } else {
                take(one.length * size_of_type(one.item_type));
            }
            one.value = bytes(was, at);
        } else {
            one.value = take(size_of_type(one.type));
        }
        return one;
    }

    tensor info() {
        tensor one;
        one.name         = string();
        const uint32_t n = number<uint32_t>();
        for (uint32_t i = 0; ok && i < n && i < 8; i++) {
            one.shape.push_back(number<uint64_t>());
        }
        one.type   = number<uint32_t>();
        one.offset = number<uint64_t>();
        return one;
    }

    const uint8_t * at;
    const uint8_t * end;
    const uint8_t * start = at;
    bool            ok    = true;
};

// ---- writing

class writer {
  public:
    bytes write(const model_file & file) {
        number<uint32_t>(0x46554747);
        number<uint32_t>(file.version);
        number<uint64_t>(file.tensors.size() + file.extra_tensors);
        number<uint64_t>(file.keys.size() + file.extra_kv);
        for (const key_value & one : file.keys) {
            key(one);
        }
        for (const tensor & one : file.tensors) {
            string(one.name);
            number<uint32_t>(static_cast<uint32_t>(one.shape.size()));
            for (uint64_t dimension : one.shape) {
                number<uint64_t>(dimension);
            }
            number<uint32_t>(one.type);
            number<uint64_t>(one.offset);
        }
        out.resize((out.size() + 31) / 32 * 32);
        out.insert(out.end(), file.data.begin(), file.data.end());
        return std::move(out);
    }

  private:
    template <typename Number> void number(Number value) {
        const auto * raw = reinterpret_cast<const uint8_t *>(&value);
        out.insert(out.end(), raw, raw + sizeof(value));
    }

    void string(const std::string & text) {
        number<uint64_t>(text.size());
        out.insert(out.end(), text.begin(), text.end());
    }

    void key(const key_value & one) {
        string(one.key);
        number<uint32_t>(one.type);
        if (one.type == GGUF_TYPE_STRING) {
            number<uint64_t>(one.value.size());
        } else if (one.type == GGUF_TYPE_ARRAY) {
            number<uint32_t>(one.item_type);
            number<uint64_t>(one.length);
        }
        out.insert(out.end(), one.value.begin(), one.value.end());
    }

    bytes out;
};

// ---- changing

class mutator {
  public:
    mutator(model_file & file, unsigned seed) : file(file), random(seed) {}

    void change() {
        using action = void (mutator::*)();
        static const action actions[] = {
            &mutator::scalar, &mutator::scalar, &mutator::scalar, &mutator::add_key, &mutator::add_key,
            &mutator::array, &mutator::array, &mutator::array_length, &mutator::to_array, &mutator::key_type,
            &mutator::remove_key, &mutator::text, &mutator::text, &mutator::architecture, &mutator::tokenizer,
            &mutator::shape, &mutator::shape, &mutator::tensor_type, &mutator::tensor_type, &mutator::tensor_type,
            &mutator::rename_tensor, &mutator::copy_tensor, &mutator::remove_tensor, &mutator::offset,
            &mutator::header, &mutator::charsmap,
        };
        const size_t n = 1 + below(3);
        for (size_t i = 0; i < n; i++) {
            (this->*actions[below(std::size(actions))])();
        }
        if (below(16)) {
            lay_out();
        }
    }

  private:
    size_t below(size_t n) { return n ? random() % n : 0; }

    template <typename Item> Item & pick(std::vector<Item> & items) { return items[below(items.size())]; }

    template <size_t n> std::string pick(const char * const (&names)[n]) { return names[below(n)]; }

    uint64_t integer() {
        static const uint64_t edges[] = {
            0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512, 513, 1023, 1024,
            65535, 65536, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 0x100000000, 0x3fffffffffffffff,
            0x7fffffffffffffff, 0x8000000000000000, 0xfffffffffffffffe, 0xffffffffffffffff,
        };
        return below(3) ? edges[below(std::size(edges))] : below(300);
    }

    bytes value(uint32_t type) {
        static const double floats[] = { 0,     1,    -1,    0.5, 2,        1e-30,     1e30,
                                         1e-45, 1e300, -1e30, NAN, INFINITY, -INFINITY, 64 };
        const double   real   = floats[below(std::size(floats))];
        const float    single = static_cast<float>(real);
        const uint64_t whole  = type == GGUF_TYPE_BOOL ? below(3) : integer();
        bytes          raw(size_of_type(type));
        const void *   from = type == GGUF_TYPE_FLOAT32 ? (const void *) &single :
                              type == GGUF_TYPE_FLOAT64 ? (const void *) &real : (const void *) &whole;
        memcpy(raw.data(), from, raw.size());
        return raw;
    }

    std::string architecture_name() {
        for (const key_value & one : file.keys) {
            if (one.key == "general.architecture") {
                return std::string(one.value.begin(), one.value.end());
            }
        }
        return "llama";
    }

    key_value * find(uint32_t type) {
        std::vector<key_value *> found;
        for (key_value & one : file.keys) {
            if (one.type == type) {
                found.push_back(&one);
            }
        }
        return found.empty() ? nullptr : pick(found);
    }

    key_value * find(const std::string & key) {
        const auto at = std::find_if(file.keys.begin(), file.keys.end(), [&](auto & one) { return one.key == key; });
        return at == file.keys.end() ? nullptr : &*at;
    }

    void set(const std::string & key, uint32_t type, const bytes & value) {
        key_value * one = find(key);
        if (!one) {
            file.keys.emplace_back();
            one = &file.keys.back();
        }
        one->key   = key;
        one->type  = type;
        one->value = value;
    }

    void scalar() {
        for (int tries = 0; !file.keys.empty() && tries < 20; tries++) {
            key_value & one = pick(file.keys);
            if (size_of_type(one.type)) {
                one.value = value(one.type);
                return;
            }
        }
    }

    void add_key() {
        std::string name = pick(key_names);
        const size_t at  = name.find("%s");
        if (at != std::string::npos) {
            name.replace(at, 2, architecture_name());
        }
        static const uint32_t types[] = { GGUF_TYPE_UINT32, GGUF_TYPE_UINT32, GGUF_TYPE_FLOAT32, GGUF_TYPE_BOOL,
                                          GGUF_TYPE_INT32, GGUF_TYPE_UINT64, GGUF_TYPE_UINT16 };
        const uint32_t type = types[below(std::size(types))];
        set(name, type, value(type));
        if (!below(4)) {
            make_array(*find(name));
        }
    }

    void array() {
        key_value * one = find(static_cast<uint32_t>(GGUF_TYPE_ARRAY));
        const size_t width = one ? size_of_type(one->item_type) : 0;
        if (width && one->value.size() >= width) {
            const bytes item = value(one->item_type);
            std::copy(item.begin(), item.end(), one->value.begin() + below(one->value.size() / width) * width);
        } else if (one && one->item_type == GGUF_TYPE_STRING) {
            string_item(*one);
        }
    }

    // Change one of the strings, lengths included: all of them are in `value`.
    void string_item(key_value & one) {
        size_t at = 0;
        for (size_t i = below(one.length); i > 0 && at + 8 <= one.value.size(); i--) {
            at += 8 + length_at(one.value, at);
        }
        if (at + 8 > one.value.size() || length_at(one.value, at) > one.value.size() - at - 8) {
            return;
        }
        const uint64_t length = length_at(one.value, at);
        bytes          text(one.value.begin() + at + 8, one.value.begin() + at + 8 + length);
        mutate(text, 32);
        const uint64_t now = text.size();
        memcpy(one.value.data() + at, &now, sizeof(now));
        one.value.erase(one.value.begin() + at + 8, one.value.begin() + at + 8 + length);
        one.value.insert(one.value.begin() + at + 8, text.begin(), text.end());
    }

    static uint64_t length_at(const bytes & raw, size_t at) {
        uint64_t length;
        memcpy(&length, raw.data() + at, sizeof(length));
        return std::min<uint64_t>(length, raw.size());
    }

    void mutate(bytes & raw, size_t grow) {
        const size_t size = raw.size();
        raw.resize(size + grow);
        raw.resize(LLVMFuzzerMutate(raw.data(), size, raw.size()));
    }

    void array_length() {
        key_value * one = find(static_cast<uint32_t>(GGUF_TYPE_ARRAY));
        const size_t width = one ? size_of_type(one->item_type) : 0;
        if (width) {
            one->length = below(2) ? below(one->length + 4) : one->length - below(2);
            one->value.resize(std::min<uint64_t>(one->length, 1 << 16) * width);
        } else if (one && !below(4)) {
            one->length = integer();
        } else if (one && one->length > 1) {  // fewer strings
            one->length = below(one->length);
            size_t at   = 0;
            for (uint64_t i = 0; i < one->length && at + 8 <= one->value.size(); i++) {
                at += 8 + length_at(one->value, at);
            }
            one->value.resize(std::min(at, one->value.size()));
        }
    }

    void make_array(key_value & one) {
        const bytes item = one.value;
        if (item.empty() || !size_of_type(one.type)) {
            return;
        }
        one.item_type = one.type;
        one.type      = GGUF_TYPE_ARRAY;
        one.length    = below(8) ? 1 + below(4) : 600;
        for (uint64_t i = 1; i < one.length; i++) {
            one.value.insert(one.value.end(), item.begin(), item.end());
        }
    }

    void to_array() {
        if (!file.keys.empty()) {
            make_array(pick(file.keys));
        }
    }

    void key_type() {
        if (!file.keys.empty()) {
            key_value & one = pick(file.keys);
            one.type        = static_cast<uint32_t>(below(GGUF_TYPE_COUNT + 1));
            if (size_of_type(one.type)) {
                one.value.resize(size_of_type(one.type));
            }
        }
    }

    void remove_key() {
        if (!file.keys.empty()) {
            file.keys.erase(file.keys.begin() + below(file.keys.size()));
        }
    }

    void text() {
        if (key_value * one = find(static_cast<uint32_t>(GGUF_TYPE_STRING))) {
            mutate(one->value, 32);
        }
    }

    // Another architecture, which finds its keys.
    void architecture() {
        const std::string old = architecture_name() + ".", now = pick(architectures);
        for (key_value & one : file.keys) {
            if (one.key.compare(0, old.size(), old) == 0) {
                one.key.replace(0, old.size() - 1, now);
            }
        }
        set("general.architecture", GGUF_TYPE_STRING, bytes(now.begin(), now.end()));
    }

    void tokenizer() {
        const bool        pre  = below(2);
        const std::string name = pre ? pick(pre_tokenizers) : pick(tokenizers);
        set(pre ? "tokenizer.ggml.pre" : "tokenizer.ggml.model", GGUF_TYPE_STRING, bytes(name.begin(), name.end()));
    }

    void shape() {
        if (file.tensors.empty()) {
            return;
        }
        tensor & one = pick(file.tensors);
        if (below(4) && !one.shape.empty()) {
            pick(one.shape) = integer();
        } else {
            one.shape.resize(below(6), 1);
        }
    }

    void tensor_type() {
        if (!file.tensors.empty()) {
            static const uint32_t usual[] = { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0,
                                              GGML_TYPE_I32 };
            const size_t          other   = below(GGML_TYPE_COUNT + 2);
            pick(file.tensors).type       = below(4) ? usual[below(std::size(usual))] : static_cast<uint32_t>(other);
        }
    }

    std::string tensor_name() {
        std::string  name = pick(tensor_names);
        const size_t at   = name.find("%d");
        if (at != std::string::npos) {
            name.replace(at, 2, std::to_string(below(3)));
        }
        return name + (below(4) ? ".weight" : ".bias");
    }

    void rename_tensor() {
        if (!file.tensors.empty()) {
            pick(file.tensors).name = below(2) ? tensor_name() : pick(file.tensors).name;
        }
    }

    void copy_tensor() {
        if (!file.tensors.empty()) {
            tensor copy = pick(file.tensors);
            copy.name   = tensor_name();
            file.tensors.push_back(copy);
        }
    }

    void remove_tensor() {
        if (!file.tensors.empty()) {
            file.tensors.erase(file.tensors.begin() + below(file.tensors.size()));
        }
    }

    void offset() {
        if (!file.tensors.empty()) {
            pick(file.tensors).offset = below(2) ? integer() : pick(file.tensors).offset;
        }
    }

    void header() {
        switch (below(5)) {
            case 0: file.version = static_cast<uint32_t>(integer()); break;
            case 1: file.extra_kv = static_cast<int64_t>(integer()); break;
            case 2: file.extra_tensors = static_cast<int64_t>(integer()); break;
            case 3: set("general.alignment", GGUF_TYPE_UINT32, value(GGUF_TYPE_UINT32)); break;
            default: file.data.resize(below(file.data.size() + 64)); break;
        }
    }

    // T5's table of how characters are normalised: a trie and the texts that it leads to.
    void charsmap() {
        key_value * one = find("tokenizer.ggml.precompiled_charsmap");
        if (!one) {
            set("tokenizer.ggml.precompiled_charsmap", GGUF_TYPE_ARRAY, bytes(8, 0));
            one            = &file.keys.back();
            one->item_type = GGUF_TYPE_UINT8;
        }
        mutate(one->value, 64);
        if (one->value.size() > 4 && below(2)) {
            const uint32_t size = static_cast<uint32_t>((one->value.size() - 4) / 4 * 4);
            memcpy(one->value.data(), &size, sizeof(size));
        }
        one->length = one->value.size() / std::max<size_t>(1, size_of_type(one->item_type));
    }

    // Put the tensors one behind the other, as GGUF wants them, and make room for them.
    void lay_out() {
        uint64_t total = 0;
        for (tensor & one : file.tensors) {
            one.offset = total;
            total += (size_of(one) + 31) / 32 * 32;
        }
        if (total < 1 << 20) {
            file.data.resize(total);
        }
    }

    // 0 for what cannot be, or is too large to be meant.
    static uint64_t size_of(const tensor & one) {
        const auto     type  = static_cast<ggml_type>(one.type);
        const uint64_t block = one.type < GGML_TYPE_COUNT ? ggml_blck_size(type) : 0;
        uint64_t items = 1;
        for (uint64_t dimension : one.shape) {
            items = dimension < 1 << 20 ? items * dimension : 0;
            if (items > 1 << 20) {
                return 0;
            }
        }
        return block ? items / block * ggml_type_size(type) : 0;
    }

    model_file & file;
    std::mt19937 random;
};

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t * data, size_t size, size_t max_size, unsigned seed) {
    model_file file;
    if (seed % 50 == 0 || !reader(data, size).read(file)) {
        return LLVMFuzzerMutate(data, size, max_size);
    }
    mutator(file, seed).change();
    const bytes out = writer().write(file);
    if (out.size() > max_size) {
        return size;
    }
    memcpy(data, out.data(), out.size());
    return out.size();
}

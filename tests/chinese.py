"""Chinese reviews of three domains, a vocabulary of the form of Chinese BERT, and a small StructBERT, for the tests.

The sentences were written for this project. A Chinese text has no spaces, so each character must become a word of its own; some sentences
also have Latin letters, digits, and punctuation of both widths.
"""

import json
import os
import random

import tiny
from safetensors.numpy import load_file, save_file

from tools.convert_checkpoint import HUGGING_FACE, convert

DOMAINS = ("酒店", "图书", "手机")
LABELS = ("差评", "好评")
_COUNTS = {"train": slice(0, 6), "dev": slice(6, 8), "test": slice(7, 8)}

REVIEWS = {
    ("酒店", "差评"): (
        "房间很脏，服务也很差。",
        "隔音太差，一晚上都没睡好，很失望。",
        "早餐糟糕，WiFi还连不上，差！",
        "前台态度差，再也不来了。",
        "空调坏了没人修，糟糕的一晚。",
        "床单不干净，让人失望。",
        "位置太偏，服务糟糕。",
        "设施很旧，住得很失望。",
    ),
    ("酒店", "好评"): (
        "房间很干净，服务也很好。",
        "位置方便，早餐丰富，非常满意！",
        "前台热情，推荐大家来住。",
        "床很舒服，隔音不错，满意。",
        "离地铁站5分钟，推荐！",
        "服务优秀，下次还来。",
        "早餐优秀，住得很满意。",
        "环境很好，推荐给朋友。",
    ),
    ("图书", "差评"): (
        "故事很无聊，看了10页就失望了。",
        "翻译很差，句子都读不通。",
        "印刷糟糕，纸张也薄。",
        "内容太差，全是废话。",
        "情节糟糕，作者不用心，失望。",
        "书角都破了，包装很差。",
        "结尾糟糕，浪费时间。",
        "例子太旧，读完很失望。",
    ),
    ("图书", "好评"): (
        "故事很好看，一口气读完。",
        "翻译优秀，文字流畅。",
        "印刷清楚，孩子非常满意。",
        "内容丰富，推荐给学生！",
        "作者写得很好，情节优秀。",
        "包装用心，满意的一本书。",
        "例子很好，推荐阅读。",
        "纸张优秀，读得满意。",
    ),
    ("手机", "差评"): (
        "电池很差，半天就没电。",
        "屏幕糟糕，APP老是卡住。",
        "信号差，打电话听不清，失望。",
        "拍照糟糕，晚上什么都看不清。",
        "系统太差，天天死机!",
        "充电慢，客服也让人失望。",
        "声音糟糕，后悔买了。",
        "外壳太滑，手感差。",
    ),
    ("手机", "好评"): (
        "电池很好，能用2天。",
        "屏幕优秀，颜色漂亮。",
        "信号好，通话清楚，满意。",
        "拍照优秀，推荐购买!",
        "系统流畅，非常满意。",
        "充电快，价格便宜，推荐。",
        "声音很好，买得满意。",
        "手感优秀，推荐这款。",
    ),
}


def vocabulary():
    """Tokens in the form of Chinese BERT: special tokens, each character alone and after ##, letters, digits, punctuation."""
    characters = sorted({char for texts in REVIEWS.values() for text in texts for char in text.lower()})
    words = [char for char in characters if ord(char) >= 0x4E00 and ord(char) < 0xA000]
    latin = list("abcdefghijklmnopqrstuvwxyz0123456789")
    marks = [char for char in characters if char not in words and char not in latin]
    unused = [f"[unused{number}]" for number in range(1, 4)]
    pieces = ["wifi", "app", "##" + "pp", *latin, *("##" + char for char in latin)]
    return ["[PAD]", *unused, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *marks, *words, *pieces, *("##" + char for char in words)]


def write_reviews(folder):
    """Writes train.csv (6 rows of each class and domain), dev.csv and test.csv into a folder."""
    for split, rows in _COUNTS.items():
        chosen = [(text, domain, label) for (domain, label), texts in REVIEWS.items() for text in texts[rows]]
        random.Random(split).shuffle(chosen)
        tiny.write_rows(folder, split, chosen)


def write_structbert(folder, scratch, config):
    """Writes a small StructBERT with random weights as SOFA's archives hold it, without files of a tokenizer but vocab.txt.

    Args:
        folder: path of the archive.
        scratch: folder for what stands between.
        config: its `BertConfig`; the size of the vocabulary must be that of `vocabulary`.
    """
    snapshot, plain = os.path.join(scratch, "snapshot"), os.path.join(scratch, "plain")
    tiny.write_encoder(snapshot, config, vocabulary())
    convert(snapshot, plain, to=HUGGING_FACE, do_lower_case=True, log=lambda line: None)
    with open(os.path.join(plain, "config.json"), encoding="utf-8") as file:
        about = json.load(file)
    about.update(model_type="sbert", architectures=["SbertModel"], attention_type="self")
    os.makedirs(folder)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(about, file)
    tiny.write_vocabulary(os.path.join(folder, "vocab.txt"), vocabulary())
    tensors = load_file(os.path.join(plain, "model.safetensors"))
    save_file({"bert." + name: value for name, value in tensors.items()}, os.path.join(folder, "model.safetensors"))
    return folder

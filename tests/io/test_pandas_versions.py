"""Frames as other pandas pickle them (1.5.3; 3.1.1 with and without pyarrow), kept here as packed text."""

import base64
import zlib

import numpy as np
import pandas as pd
import pytest

from celbo.io.torch_file import read_pickle_file

from .test_codec import assert_same

HISTORY = pd.DataFrame({"elbo": np.array([1.0, 2.0], dtype=object)}, index=pd.Index([0, 1], name="epoch"))
PICKLED = {
    "p1_history": (
        HISTORY,
        "eNp1Um1PFDEQ3jtelPqGiuL7+8sheooioqIgIggXz2Q/7RfStL3Cbujt3rPtBkm8RD/cHfxb/4F2u4cEg9Nkp7OdmWfmmflRFi0W"
        "N5iuiiSV1Y2UNSVZYoYtuxu8iZ8otVGuBIOe59HmZoqBQxFRbGQaM6WrTRazTZlqsqgSsfWlsAgG992pirg+8Cc0i1uR2FKS8jyA"
        "YEjEWbO1U+RtZspELE3ZDqGpFEmsTZoJQzBceBGb073iWM3r4LigImlIoYmM8wvBSFCyFXOQYNhqxUwUT+FEFyd9nOrhtI8zlVrJ"
        "nnIXo/2UDbPTspFng7KN+DqLc3u7PZz3MVapDbhs33GhXq+v/bbiPrV5g4t8bx3jlZX5X56TlYVCe9LgEheU8iyyrcSUEq0iYfNf"
        "rnk5cg9XfFytlXu45uN6BzfWcbPyD7cN+U3qKmdaEhrLbbqa/yG49X+3vsftNu4UM2vYYeJuOBw6nu6Ftvn7Ph645jt4GI7Z8gtP"
        "qXiCCWbwiDs7thuAyXrWxWMfT8KjQS1zMo2ExTUz033wahtPK+FfzGc55pSP5zlmuYMXYcFwNIvpnOGXPmb2GZ7Dq8MMewazfC8c"
        "CUa9Ayn1NV6HdqJvfLw1mOPhZDCUt9FKRIh3tuz3PuZlFws+PhTra+eLxWCkz4pbdnx0Nm1KwxxVS+v45PIwY1KN5TZW3AbRDcU2"
        "NT63sRqM589KJduaNrKWnSozkirGpdJY29UZr/4BuKMP4A==",
    ),
    "p3_history": (
        HISTORY,
        "eNpdU2lz0zAUdNPSUnOf5b7KYS5DOctZCqWhDQ0gLnMEITtK7MFxvJY8JTNkgA9O23/LR76BZCfDFHnGsqx9T+/trn6UvJhFdSbM"
        "OSbZfMJa3IRx9ieGuihZzohhGLTVTDDch9leO+F2EEmeRCwUdotFrMkTYT4M296XpWJlYmQAp2Hgin94k6ZRHHhfQk5dHWBigxel"
        "rbhj0zxxKw1lwJKEdUyacK8dCZmknjQxWsBMlTTfxVjFyLDRU2F17gmTR/rDxLgzpEp2YTqjag6ZDKIpbOphM8GWFWwl2GZVhtRT"
        "6mF7P2VddmIVucMpqYhn09i5trqCXQS7rcpwnu0b9lSr1cU/auSvyozEXnethgmrPPPLyEf5QTEbXGKf61HqpoFqJaLUFGHgqfz7"
        "K4Y+eQUHCA5WSis4RHA4w5Eajlr/kVvnX7mwXSa4SSO+TBf0HxPHBlL118e7OFFIVFfaYXKQJWdImLNJ0l5+KZMgas4WnJ1Uup7q"
        "4rTljGtdY0ZzKM54cYdptK3U0sQLqQqhfaYta922Zos22gllYaBqwVlnc8500uRU5KfhXIbzBBdUu0bFqOGiVV2XIe4odhoN7RN7"
        "HVNuR/L+oZf8cWe78W+M9Gdc9pWaUwRXMlwluJbhOsEN3/Z1gAbx0G3jpgZNE9zKcJvgToa7BPd4DferEjMZHhDM5v6gufZ4OCC2"
        "YGuuMMQjZ0xB+oVjrvz9d1FCD48J5ot4j3k+R7mLJ6mbHx+pC4SFatrDIkHFP+YrkZ5a/qQ/6ueOXfKVDasEz7QNSxme+4Xvgmm8"
        "0L4jBC8HvruLV+t9Z0i8dtf+Y2ZowMwb3fRbAkfinesvOBs0G3Hb8/FelfOB4CPvoUbwqbjVqknQ3AjaPQ198/G5MEaLS5ZbitXg"
        "5nmYlImA10W96LsRsqYA76LhTOjtMGwvC1pPY+V1JjkNmctDgeaqSF37L5WQZ1s=",
    ),
    "p3n_history": (
        HISTORY,
        "eNpdk9tT00AUxtMCVdYbKop3ULwUL1UUFRXlYqVCpOj6khdmZ5MuTYY0zZdsBjpjR31oC/+tvvmmm007DG5mstndc749+X27P/JO"
        "yIMaj0mZS74a8YYgMGZ+ItdGvmgNG4bBGvUIQ/2wktOMRMkLpIgC7selBg94XUQxWfGbzs5GNiIYHoQz37Pjw3jCkiD0nB1fMDtN"
        "IBhxgqQRtkpMCzcSX3o8iniLsEg4zSCWUeJIgkIWRpSoXsUx0+jguKPSasKJiQjSD4JRK6dKtkGsgup9Lr1gFie6OElxqofTFGeK"
        "Zk49+S7G+pI12QpV5lkrrzI253HuYL+H8xTjRXNIq33DhWq1uv5XNf0yFyUu2gdbmChWFn8ZulWWst4QEpdshzE78dSvBIyR2Pcc"
        "pX/ZNNKde7hCcdXM93CN4noHN7YwWfwPbk3sibhk81gQFohdtpbOEEwNrOqPb7ZxK7OoprzD9FHmmpMCzsLW3iH1ank5nV/hzo6o"
        "Edwe5PSjv8rIC+rLGeI765OF38PVHu5S3BvsnUWUM2ZFTTlsSbcZYKby/U/GoIv7FA/cgqtNeugq8o8oSpp8B4/dccXuiS5c+HYT"
        "s1ziqd3FM1vPBeoMYq6adPGc4oU75ar/fFl0pwd686neK4rXqV6+gzduZp03j4XUurcU7wbWLWDxqHWGxJJ94I5aY8Zhy/V7LLvq"
        "qKxQvJco2+6cNZKWGDYdFx9UOasUFdHFR4q17GIoCFi3RvsGbKeXB6Yes4aQXLvyaQsbWodLGcWotrGpobFtn9djfG7jizWRLvt+"
        "czdmtSRUx4VLwXxuCz8G3Y8Tu/QP+UUq7g==",
    ),
    "p3_stridx": (
        pd.Index(["a", "b"], name="n"),
        "eNpVUclOwzAQTQu01JS27Pu+hS0Sn4CEhFClHswll8pyHLeJVJI8JxXkUAGH9Js5kg2h+jLbmzdvxl9VEXDP5qEhfCUN17PlhwwN"
        "i4eSME++s5csQ6CVMFLGlQmqujmvaZrNI465PxauFI9D8qiU//4aKdcbPmYZgvnrbyxMUNPNRtrEAs5yKOoiiHmGNkauRZiSYZQK"
        "KYoEi/pMOYoDyQa+YnzkplrQMJsp2YiroWRhPg0kwRJFs1vtal2tj2W9N8MQxMwaDwZSEbQES313FLkeY8SKI1kObQsmfFuKkEgv"
        "cwg65rb2/yqlrZYWK2Ytl5EyPWB1ijWK9QQbFJsJtii2nZbTdjpmhucWdpwUskuxl2Cf4iDBIcWR7OO4F+EkwSnFWc7H7GxdnP9d"
        "vjjnU5YkuDDrKaTcDJfPnz+FlimuKPSiX3DhSFxPcDO28q/y+JvErZnp93A3nuKewjB+AbuJmx0=",
    ),
    "p3_string": (
        pd.Series(["a", None], dtype="string"),
        "eNpdU2lz0zAQdUJPUa5ytNCW+0g5TAPlPlPKUUwDqBQMMxmN7CixB8fxk2xKPngGPrjws5HtFKb4i7W7b3ffap9+VN2Ih22uyIaQ"
        "vlAExuJPVFJUa/aIYRis15XYM8SYbl8K0w9jIUMeKLPHQ94VUuf6YTcQK0Hf/bpe+ghGdJ3RWgtj/yW3xXehTIcrQVgottha7iEY"
        "3+FBedgVQ+dEismSR8h7AqRpj+qzirmMsdcyioiK+xGmrOrQEBH2WZVkG/spDvAWDu6051LygSINKftbG7HUjBu5h+CQJjqd4nDN"
        "nswHjjgroDjiRgOeo83AdwiTQneSogwSHK3tCseDSLBOXzIe+HoIHLOndLGAy65gquiGmQyzFMetqlWxjBZO7C4QDZiTdDr5zc25"
        "TJ/9IPZDxogziMWw57zL3H5buIqIMD8QLNgV3aaCk/ZY0U6n1HFqG6cpzmQ4S3Euw3mKC96cN+8t2LPGv6/y3x8XPZ14iaKWYZHi"
        "coYrFFeHiTmI41qOMCmuZ1iiqGe4QXFTtLDcjHErw22KOwUP1s6vA3f/Squ4gNXcSXDPHteQ4ei4v4NpNggebOMhxaOyhstdT+Bx"
        "iieJo/f41Bv3tBwaNY80Pb17T6/cKze9QvGMp1gt8pbM+rJZx/MUL0rlcC03vPTGiqiTS1ThVQtrKV7XCt83HiQaYnnT9oQ2teCZ"
        "Rim82bUGFfiuZr9uGfkCf6FJ8TbhiYrxzilfih4P74uKqnhKoKWgeiLmbR5zbLTwoRAwK9S8yQuDx7FU+JjiUzl3J+BdBTvFZ3sm"
        "DwdBf0uxdhJpAjwWLOCOCBS+/FbeZjNxzD8NNSch",
    ),
}


@pytest.mark.parametrize("name", PICKLED)
def test_frames_of_other_pandas_versions(tmp_path, name):
    expected, packed = PICKLED[name]
    (tmp_path / "x.pkl").write_bytes(zlib.decompress(base64.b64decode(packed)))
    assert_same(read_pickle_file(tmp_path / "x.pkl"), expected)

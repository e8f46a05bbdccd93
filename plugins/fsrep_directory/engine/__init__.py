"""The engine of the directory storage: synchronous, and of the standard library alone.

What takes time runs in a child process, as ``zfs send`` and ``zfs receive`` do: a stream
is whole exactly if its maker's exit status says so, killing the process ends the work,
and the two ends of a stream use two processors. The child starts as a bare interpreter
(:mod:`fsrep_directory.launch`), in which this package stands alone, so its modules name
each other relatively and import nothing of fsrep.

Who reads the tree from the top finds: ``names`` and ``records`` (what may be said),
``manifest`` (a version, said whole), ``store`` (where it lies), ``stream``, ``tar_write``
and ``tar_read`` (how it travels), ``tree`` with ``folders``, ``linking``, ``attributes``,
``acl`` and ``extents`` (how it is built), and one module for each thing that can be asked:
``create`` (with ``walk`` and ``taking``), ``send``, ``receive`` (with ``receiving`` and
``partial``), ``destroy``, ``cursor`` and ``inventory``.
"""

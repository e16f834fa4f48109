"""Mutation testing of controller/core: which changes of its decisions would no test notice?"""
